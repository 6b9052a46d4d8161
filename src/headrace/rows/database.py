"""The DuckDB instance of a row stage: in memory, shut off from files and network, its statements prepared."""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from headrace.errors import InternalError
from headrace.log.arrays import Mask
from headrace.rows.carried import typed
from headrace.rows.decode import strings_sql
from headrace.rows.functions import raise_unusable, register_functions
from headrace.rows.instants import instants
from headrace.rows.query import free_instants, row_query
from headrace.sql.plan import StreamPlan

if TYPE_CHECKING:
    import duckdb

__all__ = ["RowDatabase", "Statement", "arrow_of", "bare_arrow_of"]


_BATCH_ROWS = 16_384
_ARROW_ROWS = 131_072
_SHORT_WAY = "_submit"
_LONG = 2_000
_PREPARED_MAX = 100


class Statement(Enum):
    """The statements of a row stage; the value is the relation that each reads.

    `doc` VARCHAR and `record_time` TIMESTAMPTZ; the trusting ones read `original` VARCHAR as well.
    """

    DOUBTING = ("_doubted", "doubting")
    DOUBTING_TRYING = ("_doubted", "doubting_trying")
    TRUSTING = ("_trusted", "trusting")
    TRUSTING_TRYING = ("_trusted", "trusting_trying")
    VALID = ("_doubted", "valid")

    @property
    def relation(self) -> str:
        """The relation that the statement reads."""
        return self.value[0]

    @property
    def doubting(self) -> bool:
        """Whether it reads records as they came and gives their columns."""
        return self in (Statement.DOUBTING, Statement.DOUBTING_TRYING)

    def text(self, plan: StreamPlan) -> str:
        """The statement's SQL."""
        if self is Statement.VALID:
            return f"SELECT json_valid(doc) AS valid FROM {self.relation}"
        trusting = self in (Statement.TRUSTING, Statement.TRUSTING_TRYING)
        trying = self in (Statement.DOUBTING_TRYING, Statement.TRUSTING_TRYING)
        return row_query(plan, self.relation, trusting=trusting, trying=trying)


class _Feed:
    """A relation whose rows change between calls, so that a prepared statement need not be planned again."""

    def __init__(self, schema: pa.Schema) -> None:
        self.schema = schema
        self.empty = schema.empty_table()
        self.table = self.empty

    def __arrow_c_schema__(self) -> Any:
        return self.schema.__arrow_c_schema__()

    def __arrow_c_stream__(self, requested_schema: Any = None) -> Any:
        return self.table.__arrow_c_stream__(requested_schema)


_DOUBTED = pa.schema([("doc", pa.string()), ("record_time", pa.timestamp("us", "UTC"))])
_SCHEMAS = {
    "_doubted": _DOUBTED,
    "_trusted": _DOUBTED.append(pa.field("original", pa.string())),
    "_texts": pa.schema([("text", pa.string())]),
}


def arrow_of(connection: Any, text: str) -> pa.Table:
    """Return the rows of one statement of any kind, with the types that Arrow loses (see `carried`).

    The public way runs the rows through a second statement, which doubles the cost of a small batch. DuckDB's
    own Python layer has a way without it; we take it as long as it is there.
    """
    submit = getattr(connection, _SHORT_WAY, None)
    if submit is None:
        found = connection.sql(text)
        types = dict(zip(found.columns, map(str, found.types), strict=True))
        return typed(found.to_arrow_table(), types)
    result = submit(text, None, "arrow", _ARROW_ROWS)
    types = {column[0]: str(column[1]) for column in result.description}
    return typed(result.arrow_table(), types)


def bare_arrow_of(connection: Any, text: str) -> pa.Table:
    """Return the rows of a SELECT as `arrow_of` does, for who does not give them to DuckDB again."""
    submit = getattr(connection, _SHORT_WAY, None)
    if submit is None:
        return connection.sql(text).to_arrow_table()
    return submit(text, None, "arrow", _ARROW_ROWS).arrow_table()


class RowDatabase:
    """Runs a plan's statements over Arrow tables. Opened by its first use; one call at a time."""

    def __init__(self, plan: StreamPlan, threads: int) -> None:
        self._plan = plan
        # DuckDB makes a join of `x IN (constants)`, which loses the order of the rows on several threads and
        # costs a millisecond. Only a list of hundreds is faster as a join, and then one thread does the work.
        texts = [derived.sql for derived in plan.derived] + [check.sql for check in plan.checks]
        self._joins = any(len(text) > _LONG for text in texts)
        self._threads = 1 if self._joins else threads
        self._free_instants = free_instants(plan)
        self._opened: duckdb.DuckDBPyConnection | None = None
        self._feeds: dict[str, _Feed] = {}
        self._prepared: set[str] = set()

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_opened": None, "_feeds": {}, "_prepared": set()}

    def attempt(self, statement: Statement, source: pa.Table) -> pa.Table | None:
        """Run `statement` over `source`; None when a record of it raised.

        Raises InternalError when the statement cannot be run over any record, DeclarationError when a
        function cannot.
        """
        import duckdb

        try:
            return self.run(statement, source)
        except (duckdb.BinderException, duckdb.CatalogException, duckdb.ParserException) as error:
            stream = self._plan.stream.name
            raise InternalError(f"stream '{stream}': the row query does not run: {error}") from error
        except duckdb.Error:
            return None

    def run(self, statement: Statement, source: pa.Table) -> pa.Table:
        """Run `statement` over `source`; raises what DuckDB raises."""
        relation, name = statement.value
        if name not in self._prepared:
            self._prepare(name, statement.text(self._plan))
        table = self._execute(name, relation, source)
        return self._with_instants(table) if statement.doubting and self._free_instants else table

    def _with_instants(self, table: pa.Table) -> pa.Table:
        """Read the instants that the statement gave as texts; `_unproved_N` says which are in doubt."""
        for number in self._free_instants:
            values, unproved = instants(table.column(number), self._cast)
            table = table.set_column(number, table.schema.names[number], values)
            table = table.append_column(f"_unproved_{number}", unproved)
        return table

    def _cast(self, texts: Any) -> Any:
        """The slow way to instants, for texts that Arrow does not read."""
        if "instants" not in self._prepared:
            self._prepare("instants", "SELECT TRY_CAST(text AS TIMESTAMPTZ) AS instant FROM _texts")
        found = self._execute("instants", "_texts", pa.table({"text": texts})).column("instant")
        return pa.concat_arrays(found.chunks) if found.num_chunks else pa.array([], found.type)

    def strings(self, source: pa.Table, numbers: frozenset[int]) -> Mask | None:
        """Which documents of `source` hold strings wherever a column of these `numbers` declares one.

        A string may be NULL or missing as well. None: a document raised.
        """
        import duckdb

        name = "strings_" + "_".join(map(str, sorted(numbers)))
        if name not in self._prepared:
            if len(self._prepared) >= _PREPARED_MAX:
                numbers = frozenset(range(len(self._plan.stream.schema.columns)))
                name = "strings_all"
            columns = [self._plan.stream.schema.columns[number] for number in sorted(numbers)]
            self._prepare(name, strings_sql(columns, "_doubted"))
        try:
            found = self._execute(name, "_doubted", source)
        except duckdb.Error:
            return None
        return np.array(found.column("strings"), np.bool_)

    def _prepare(self, name: str, text: str) -> None:
        connection = self._connection()
        try:
            connection.execute(f"PREPARE {name} AS {text}")
        finally:
            raise_unusable(connection)  # a call of constants is made by the planner
        self._prepared.add(name)

    def _execute(self, name: str, relation: str, source: pa.Table) -> pa.Table:
        feed = self._feeds[relation]
        if self._threads > 1:
            # A thread takes a batch at a time.
            source = pa.Table.from_batches(source.to_batches(max_chunksize=_BATCH_ROWS), source.schema)
        feed.table = source
        try:
            return arrow_of(self._opened, f"EXECUTE {name}")
        finally:
            feed.table = feed.empty
            if self._opened is not None:
                raise_unusable(self._opened)

    def close(self) -> None:
        """Give back the instance; the next use opens another."""
        if self._opened is not None:
            self._opened.close()
        self._opened = None
        self._feeds = {}
        self._prepared = set()

    def _connection(self) -> duckdb.DuckDBPyConnection:
        if self._opened is None:
            import duckdb

            connection = duckdb.connect(":memory:", config={"threads": self._threads})
            connection.execute("SET TimeZone = 'UTC'")
            if not self._joins:
                connection.execute("SET disabled_optimizers = 'in_clause'")
            register_functions(connection, self._plan.functions)
            for relation, schema in _SCHEMAS.items():
                self._feeds[relation] = _Feed(schema)
                connection.register(relation, self._feeds[relation])
            for setting in (
                "autoinstall_known_extensions",
                "autoload_known_extensions",
                "enable_external_access",
            ):
                connection.execute(f"SET {setting} = false")
            connection.execute("SET lock_configuration = true")
            self._opened = connection
        return self._opened
