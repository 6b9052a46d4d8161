"""Queries that the engine asks again and again, over relations that are put in place before."""

from __future__ import annotations

import warnings
from typing import Any

import pyarrow as pa

__all__ = ["Queries"]

_SMALL_ROWS = 2_000
_BATCHES_MAX = 1_000
"""Deleted rows stay in a temporary table: after so many batches it is made anew, and stays small."""


class Queries:
    """Asks one connection about the relation "_rows".

    For a small batch, planning a query costs ten times what running it does: queries are prepared, once. A
    prepared
    query stays bound to the Arrow table that it saw first, so a small batch is copied into a table that
    stays the
    same. A large batch is read where it lies, by queries that are planned each time.
    """

    def __init__(self, connection: Any) -> None:
        self.connection = connection
        self._small = False
        self._registered = False
        self._schema: pa.Schema | None = None
        self._batches = 0
        self._names: dict[str, str] = {}

    def batch(self, rows: pa.Table) -> None:
        """Put the rows of a batch in place."""
        self._small = rows.num_rows <= _SMALL_ROWS
        if not self._small:
            self._drop_table()
            self.connection.register("_rows", rows)
            self._registered = True
            return
        if self._registered:
            self.connection.unregister("_rows")
            self._registered = False
        self.connection.register("_batch", rows)
        self._batches += 1
        if self._schema is not None and self._schema.equals(rows.schema) and self._batches % _BATCHES_MAX:
            self.connection.execute("DELETE FROM temp._rows")
            self.connection.execute("INSERT INTO temp._rows SELECT * FROM _batch")
            return
        self._drop_table()
        self.connection.execute("CREATE TEMP TABLE _rows AS SELECT * FROM _batch")
        self._schema = rows.schema

    def _drop_table(self) -> None:
        if self._schema is not None:
            self.connection.execute("DROP TABLE temp._rows")
            self._schema = None
            for name in self._names.values():
                self.connection.execute(f"DEALLOCATE {name}")
            self._names.clear()

    def table(self, sql: str) -> pa.Table:
        """Return what `sql` gives over the batch."""
        if not self._small:
            whole: pa.Table = self.connection.sql(sql).to_arrow_table()
            return whole
        name = self._names.get(sql)
        if name is None:
            name = f"_prepared_{len(self._names)}"
            self.connection.execute(f"PREPARE {name} AS {sql}")
            self._names[sql] = name
        with warnings.catch_warnings():
            # DuckDB advises against this way because of a copy, which is nothing for a few rows.
            warnings.simplefilter("ignore", UserWarning)
            few: pa.Table = self.connection.execute(f"EXECUTE {name}").to_arrow_table()
        return few
