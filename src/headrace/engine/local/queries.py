"""Queries that the engine asks again and again, over relations that are put in place before."""

from __future__ import annotations

import warnings
from typing import Any

import pyarrow as pa

__all__ = ["Queries"]

_SMALL_ROWS = 2_000


class _Feed:
    """A relation of DuckDB that has the rows which `table` holds when a query runs."""

    table: pa.Table

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        """Give the rows by Arrow's protocol for that; DuckDB calls this for every scan."""
        return self.table.__arrow_c_stream__(requested_schema)


class Queries:
    """Asks one connection about relations that keep their names and columns while their rows change.

    For a small batch, planning a query costs more than running it does: queries are prepared, once. Their
    rows come through a feed, because a prepared query stays bound to the object that was registered when it
    was planned. A large batch is registered itself, so that its columns are read in parallel, and only the
    ones that a query names.
    """

    def __init__(self, connection: Any) -> None:
        self.connection = connection
        self.small = False
        self._feeds: dict[tuple[str, pa.Schema], _Feed] = {}
        self._registered: dict[str, _Feed] = {}
        self._names: dict[str, str] = {}

    def batch(self, rows: pa.Table) -> None:
        """Put the rows of a batch in place, as "_rows"."""
        self.small = rows.num_rows <= _SMALL_ROWS
        if self.small:
            self.put("_rows", rows)
        else:
            self.connection.register("_rows", rows)
            self._registered.pop("_rows", None)

    def put(self, name: str, rows: pa.Table) -> None:
        """Put rows in place, as `name`, not quoted; cheap when its columns are the ones it had before."""
        feed = self._feeds.setdefault((name, rows.schema), _Feed())
        feed.table = rows.combine_chunks()  # a scan pays for every chunk
        if self._registered.get(name) is not feed:
            self.connection.register(name, feed)
            self._registered[name] = feed

    def table(self, sql: str) -> pa.Table:
        """Return what `sql` gives over relations that were put in place; prepared for small batches."""
        return self.once(f"EXECUTE {self._prepared(sql)}" if self.small else sql)

    def once(self, sql: str) -> pa.Table:
        """Return what `sql` gives."""
        if not self.small:
            whole: pa.Table = self.connection.sql(sql).to_arrow_table()
            return whole
        with warnings.catch_warnings():
            # DuckDB advises against this way because of a copy, which is nothing for a few rows.
            warnings.simplefilter("ignore", UserWarning)
            few: pa.Table = self.connection.execute(sql).to_arrow_table()
        return few

    def insert(self, sql: str, epoch: int) -> None:
        """Run an INSERT from relations that were put in place; `$1` in it is the epoch."""
        if self.small:
            self.connection.execute(f"EXECUTE {self._prepared(sql)}({epoch})")
        else:
            self.connection.execute(sql, [epoch])

    def _prepared(self, sql: str) -> str:
        name = self._names.get(sql)
        if name is None:
            name = f"_prepared_{len(self._names)}"
            self.connection.execute(f"PREPARE {name} AS {sql}")
            self._names[sql] = name
        return name
