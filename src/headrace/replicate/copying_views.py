"""Copies a view: it has no state, so it is computed again, and what differs from what was sent is sent."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import duckdb
import pyarrow as pa

from headrace.errors import DeclarationError, Problem
from headrace.replicate.cursors import CursoredCopy
from headrace.replicate.options import CommonOptions
from headrace.replicate.protocol import Chunk, Cursor, Position, version_of
from headrace.replicate.viewdiff import difference, repeated_keys
from headrace.sql.plan import TablePlan
from headrace.store.changes import Head, view_rows
from headrace.store.names import quoted

__all__ = ["OF_DATA", "ViewCopy"]

OF_DATA = (duckdb.DataError, duckdb.InvalidInputException)
"""What DuckDB raises when a query fails on a value; its text holds that value."""


class ViewCopy(CursoredCopy):
    """Copies a view: computed when its tables changed, at most every `refresh`; differences are sent."""

    def __init__(self, plan: TablePlan, options: CommonOptions, replica: str) -> None:
        super().__init__(plan, options, replica)
        self._sent: pa.Table | None = None
        self._computed: pa.Table | None = None
        self._signature: object = None
        self._computed_at = 0.0

    def _started(self, cursor: Cursor) -> None:
        super()._started(cursor)
        self._sent = self._computed = self._signature = None

    def written(self, chunk: Chunk) -> None:
        """See `TableCopy`."""
        super().written(chunk)
        self._sent = self._computed

    def behind(self, goal: int) -> bool:
        """See `TableCopy`. A view is sent as a whole."""
        return False

    def quiet(self, head: Head) -> bool:
        """See `TableCopy`."""
        if self._signature is None or self._signature != _signature(self.plan, head):
            return False
        if not self.problem:
            self.reached = head.epoch
        return True

    def next_chunk(self, reader: Any, head: Head, *, hurry: bool) -> Chunk | None:
        """See `TableCopy`."""
        assert self.cursor is not None  # noqa: S101 - the follower has begun it
        signature = _signature(self.plan, head)
        if any(facts.rebuild for facts in head.progress.tables.values()):
            return None
        if not hurry and time.monotonic() - self._computed_at < self._options.refresh.total_seconds():
            return None
        rows = self._result(reader)
        self._signature, self._computed_at = signature, time.monotonic()
        if rows is None:
            return None
        self._computed = rows
        chunk = self._changes(rows, head)
        if chunk is None:
            self._sent, self.reached = rows, head.epoch
        return chunk

    def _result(self, reader: Any) -> pa.Table | None:
        """Return the rows of the view; None when they cannot be copied, for the `problem` that is set."""
        rows_max, nested, key = self._options.view_rows_max, self._options.json_nested, self.shape.key
        view = quoted(self.plan.name)
        try:
            rows = view_rows(reader, self.plan, rows_max=rows_max, json_nested=nested)
        except OF_DATA as error:
            kind = type(error).__name__.removesuffix("Exception")
            self._fails(
                f"its query fails on data that the store holds (DuckDB says {kind}), so it is not copied",
                "write TRY_CAST or TRY(…) where a value may not fit; "
                f"`headrace sql 'SELECT * FROM {view}'` shows which one",
            )
            return None
        self.problem, self.failure = "", None
        if rows.num_rows > rows_max:
            self.problem = f"the view has more than {rows_max} rows (view_rows_max)"
            return None
        if key and (several := repeated_keys(rows, key)):
            named = ", ".join(map(quoted, key))
            self._fails(
                f"{several} of its keys ({', '.join(key)}) stand for more than one row, and a target holds "
                "one for each, so it is not copied",
                "name more columns in key=, or group by those that it has; `headrace sql 'SELECT "
                f"{named}, count(*) FROM {view} GROUP BY ALL HAVING count(*) > 1'` shows them",
            )
            return None
        return rows

    def _fails(self, what: str, fix: str) -> None:
        # Without what DuckDB said as its cause: that holds a value.
        place = self.plan.table.place
        self.problem = what
        self.failure = DeclarationError(
            [Problem(place.file, place.line, f"table '{self.plan.name}'", what, fix)]
        )

    def _changes(self, rows: pa.Table, head: Head) -> Chunk | None:
        assert self.cursor is not None  # noqa: S101 - the follower has begun it
        version = version_of(self.cursor.generation, head.epoch)
        gone = rows.select(self.shape.key).slice(0, 0)
        sweep = 0
        if self._sent is None:  # what the target holds is not known: all rows, and nothing else
            sweep = version
        else:
            changed, gone = difference(self._sent, rows, self.shape.key)
            if not changed.num_rows and not gone.num_rows and rows.num_rows == self._sent.num_rows:
                return None
            if self.shape.key:
                rows = changed
            else:
                sweep = version
        cursor = replace(self.cursor, position=Position.at(head.epoch), sweep_below=0)
        return Chunk(
            table=self.shape,
            rows=rows.append_column("_version", pa.repeat(pa.scalar(version, pa.int64()), rows.num_rows)),
            removed=gone.append_column("_version", pa.repeat(pa.scalar(version, pa.int64()), gone.num_rows)),
            cursor=cursor,
            sweep_below=sweep,
        )


def _signature(plan: TablePlan, head: Head) -> object:
    """Return what differs whenever a table that the view may read has changed."""
    tables = head.progress.tables
    if not set(plan.sources) <= set(tables):
        return head.epoch  # a view over a view: any table may be behind it
    facts = [tables[name] for name in plan.sources]
    return [(f.kept, f.removed, f.retired_through, f.fingerprint) for f in facts]
