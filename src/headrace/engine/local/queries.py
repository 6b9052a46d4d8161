"""Queries that the engine asks again and again, over relations that are put in place before."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from headrace.rows.carried import casts, restored
from headrace.rows.database import arrow_of
from headrace.sql.syntax import quoted
from headrace.store.database import memory_is_full
from headrace.store.names import text_literal

__all__ = ["Queries"]

_LARGE = 20_000

Casts = tuple[tuple[str, str], ...]


class _Feed:
    """A relation of DuckDB that has the rows which `table` holds when a query runs."""

    table: pa.Table

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        """Give the rows by Arrow's protocol for that; DuckDB calls this for every scan."""
        return self.table.__arrow_c_stream__(requested_schema)


class Queries:
    """Asks one connection about relations that keep their names and columns while their rows change.

    Planning a query costs more than running it over some thousand rows, so queries are prepared, once. Their
    rows come through a feed, because a prepared query stays bound to the object that was registered when it
    was planned. They have the types that they had in DuckDB before, or that were declared (see `carried`).
    """

    def __init__(self, connection: Any) -> None:
        self.connection = connection
        self.alone = True
        """Whether nobody else uses the memory that these queries have: a row that finds none is to blame."""
        self._feeds: dict[tuple[str, pa.Schema, Casts], _Feed] = {}
        self._registered: dict[str, _Feed] = {}
        self._names: dict[tuple[str, tuple[int, ...]], str] = {}

    def raise_crowded(self, error: Exception) -> None:
        """Raise `error` when it is that the memory is full and others have filled it: no row is to blame."""
        if not self.alone and memory_is_full(error):
            raise error

    def batch(self, rows: pa.Table) -> None:
        """Put the rows of a batch in place, as "_rows"."""
        self.put("_rows", rows)

    def put(self, name: str, rows: pa.Table) -> None:
        """Put rows in place, as `name`, not quoted; cheap when its columns are the ones it had before."""
        types = casts(rows.schema)  # schemas are equal without them
        feed = self._feeds.setdefault((name, rows.schema, types), _Feed())
        # A scan pays for every chunk, yet each thread takes one at a time.
        feed.table = rows if rows.num_rows > _LARGE else rows.combine_chunks()
        if self._registered.get(name) is not feed:
            given = f"_given_{name}"
            self.connection.register(given, feed)
            self.connection.execute(f"CREATE OR REPLACE TEMP VIEW {quoted(name)} AS {restored(given, types)}")
            self._registered[name] = feed

    def table(self, sql: str) -> pa.Table:
        """Return what `sql` gives over relations that were put in place; it is prepared."""
        return self.once(f"EXECUTE {self._prepared(sql)}")

    def once(self, sql: str) -> pa.Table:
        """Return what `sql` gives."""
        return arrow_of(self.connection, sql)

    def write(self, sql: str, *values: int | float | str) -> None:
        """Run a statement that writes, from relations that were put in place; `$1` in it is the first value.

        It is prepared.
        """
        given = ", ".join(text_literal(one) if isinstance(one, str) else repr(one) for one in values)
        self.connection.execute(f"EXECUTE {self._prepared(sql)}{f'({given})' if given else ''}")

    def _prepared(self, sql: str) -> str:
        # A query that was planned over other columns reads the feed of those: their rows, not these.
        feeds = tuple(id(feed) for name, feed in self._registered.items() if name in sql)
        name = self._names.get((sql, feeds))
        if name is None:
            name = f"_prepared_{len(self._names)}"
            self.connection.execute(f"PREPARE {name} AS {sql}")
            self._names[sql, feeds] = name
        return name
