"""Bytes in, outcomes out: the row stage of one stream."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from headrace.errors import InternalError
from headrace.rows.functions import register_functions
from headrace.rows.outcomes import Decoded, Malformed, outcomes
from headrace.rows.proof import unproved_strings
from headrace.rows.query import row_query
from headrace.rows.result import RowResult
from headrace.rows.scan import scan
from headrace.rows.strict import Reading, read_record
from headrace.sql.plan import StreamPlan

if TYPE_CHECKING:
    import duckdb

__all__ = ["RowStage"]

Rows = npt.NDArray[np.int64]
_NO_ROWS: Rows = np.zeros(0, np.int64)
_BATCH_ROWS = 16_384


class RowStage:
    """Decodes, checks and classifies the records of one stream.

    It keeps nothing between calls, so a record's outcome is a function of that record, its record time and
    its lane. It holds an in-memory DuckDB instance of its own, made when it first runs; until then it can be
    pickled. Calls come from one thread at a time.
    """

    def __init__(self, plan: StreamPlan, *, threads: int = 1) -> None:
        self._plan = plan
        self._threads = threads
        self._opened: duckdb.DuckDBPyConnection | None = None
        self._queries: dict[tuple[bool, bool], str] = {}

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_opened": None}

    def run(self, records: pa.Table, *, lane: str = "main") -> RowResult:
        """Give every record of `records` (RECORD_SCHEMA) its outcome; in lane "redrive" no time is checked.

        Never raises for a record. Raises InternalError when a query of the plan cannot be run at all.
        """
        texts = scan(records.column("value"))
        decoded, doubtful = self._read(texts.documents, texts.rows, records.column("record_time"))
        doubts = self._doubts(decoded.table)
        parts = [decoded.where(~doubts)]
        suspects = np.sort(np.concatenate([texts.suspects, doubtful, decoded.rows[doubts]]))
        malformed: list[Malformed] = []
        if len(suspects):
            trusted, malformed = self._judge(records, suspects)
            parts += trusted
        return outcomes(self._plan, records, parts, malformed, timed=lane != "redrive")

    def close(self) -> None:
        """Give back the DuckDB instance."""
        if self._opened is not None:
            self._opened.close()
            self._opened = None

    def _judge(self, records: pa.Table, suspects: Rows) -> tuple[list[Decoded], list[Malformed]]:
        """Read the suspects exactly: the good ones as a decoded part, the others with their reasons."""
        stream = self._plan.stream
        values = records.column("value").take(pa.array(suspects)).to_pylist()
        good: list[tuple[int, bytes, Reading]] = []
        malformed: list[Malformed] = []
        for row, value in zip(suspects.tolist(), values, strict=True):
            reading = read_record(value, stream.schema.columns, stream.event_time)
            if reading.reasons:
                malformed.append(Malformed(row, reading.reasons))
            else:
                good.append((row, value, reading))
        if not good:
            return [], malformed
        rows = np.array([row for row, _, _ in good])
        documents = pa.table(
            {
                "doc": pa.array([reading.text for _, _, reading in good], pa.string()),
                "original": pa.array([value for _, value, _ in good], pa.binary()).cast(pa.string()),
                "record_time": records.column("record_time").take(pa.array(rows)),
            }
        )
        table = self._query(documents, trusting=True)
        if table is None:
            raise InternalError(
                f"stream '{stream.name}': the rows of records that were read could not be made"
            )
        return [Decoded(table, rows)], malformed

    def _read(self, documents: pa.ChunkedArray, rows: Rows, times: pa.ChunkedArray) -> tuple[Decoded, Rows]:
        """Decode `documents`; gives the rows that could be, and those of documents that are no JSON."""
        if len(rows) < len(times):
            times = times.take(pa.array(rows))
        source = pa.table({"doc": documents, "record_time": times})
        table = self._query(source, trusting=False, forgiving=False)
        if table is not None:
            return Decoded(table, rows), _NO_ROWS
        valid = self._valid(source)
        table = self._query(source.filter(pa.array(valid)), trusting=False)
        if table is not None:
            return Decoded(table, rows[valid]), rows[~valid]
        nothing = self._query(source.slice(0, 0), trusting=False)
        if nothing is None:
            raise InternalError(f"stream '{self._plan.stream.name}': the row query does not run")
        return Decoded(nothing, _NO_ROWS), rows

    def _query(self, source: pa.Table, *, trusting: bool, forgiving: bool = True) -> pa.Table | None:
        """Run the row query over `source`; None when it raised. `forgiving`: let single records raise."""
        import duckdb

        for trying in (False, True) if forgiving else (False,):
            query = self._queries.get((trusting, trying))
            if query is None:
                query = row_query(self._plan, trusting=trusting, trying=trying)
                self._queries[trusting, trying] = query
            try:
                return self._run(source, query)
            except (duckdb.BinderException, duckdb.CatalogException, duckdb.ParserException) as error:
                problem = f"stream '{self._plan.stream.name}': the row query does not run: {error}"
                raise InternalError(problem) from error
            except duckdb.Error:
                continue
        return None

    def _valid(self, source: pa.Table) -> npt.NDArray[np.bool_]:
        return np.asarray(
            self._run(source, "SELECT json_valid(doc) AS valid FROM _documents").column("valid")
        )

    def _run(self, source: pa.Table, query: str) -> pa.Table:
        connection = self._connection()
        if self._threads > 1:
            source = pa.Table.from_batches(source.to_batches(max_chunksize=_BATCH_ROWS), source.schema)
        connection.register("_documents", source)
        try:
            return connection.sql(query).to_arrow_table()
        finally:
            connection.unregister("_documents")

    def _connection(self) -> duckdb.DuckDBPyConnection:
        if self._opened is None:
            import duckdb

            connection = duckdb.connect(":memory:", config={"threads": self._threads})
            connection.execute("SET TimeZone = 'UTC'")
            register_functions(connection, self._plan.functions)
            for setting in (
                "autoinstall_known_extensions",
                "autoload_known_extensions",
                "enable_external_access",
            ):
                connection.execute(f"SET {setting} = false")
            connection.execute("SET lock_configuration = true")
            self._opened = connection
        return self._opened

    def _doubts(self, table: pa.Table) -> npt.NDArray[np.bool_]:
        """Which rows of the doubting query are not proved to be what their record says."""
        doubts: npt.NDArray[np.bool_] = np.array(table.column("_suspect"), np.bool_)
        for column in self._plan.stream.schema.columns:
            values = table.column(column.name)
            needed = not column.nullable or column.name == self._plan.stream.event_time
            if needed and values.null_count:
                doubts |= np.asarray(values.is_null())
            unproved = None if column.type.sql == "JSON" else unproved_strings(values)
            if unproved is not None:
                doubts |= unproved
        return doubts
