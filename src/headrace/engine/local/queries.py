"""Queries that the engine asks again and again, over relations that are put in place before."""

from __future__ import annotations

import warnings
from typing import Any

import pyarrow as pa

__all__ = ["Queries"]

_SMALL_ROWS = 2_000


class Queries:
    """Asks one connection. For a small batch, planning a query costs ten times what running it does: these are
    prepared once. For a large one, the result is handed over without the copy that a prepared statement makes.
    """

    def __init__(self, connection: Any) -> None:
        self.connection = connection
        self.small = False
        self._names: dict[str, str] = {}

    def batch(self, rows: pa.Table) -> None:
        """Put the rows of a batch in place as the relation "_rows"."""
        self.connection.register("_rows", rows)
        self.small = rows.num_rows <= _SMALL_ROWS

    def table(self, sql: str) -> pa.Table:
        """Return what `sql` gives."""
        if not self.small:
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
