"""Copies a table with a state of its own: the rows that changed, and the keys that left, span by span.

A span of epochs holds about as many rows as a chunk does. One that holds more is sent in pieces, in the order
of a hash of the keys, and is read some pieces ahead.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from headrace.replicate.cursors import CursoredCopy
from headrace.replicate.options import CommonOptions
from headrace.replicate.protocol import Chunk, Cursor, Position, version_of
from headrace.sql.plan import TablePlan
from headrace.store.changes import (
    Closing,
    Head,
    changed_rows,
    closed_span,
    closing_between,
    epoch_sizes,
    has_closings,
    removed_keys,
)
from headrace.store.progress import TableProgress

__all__ = ["Ahead", "RowsCopy"]

_ROW_BYTES_FIRST = 256
_AHEAD_ROWS = 50_000
_AHEAD_BYTES = 16_000_000
"""Of a span that is sent in smaller pieces, so much is read at once: a reading looks at all of the span."""
_REVISION = "_revision"
_REVISIONS = 1_000_000
"""Revisions of a copying that began anew are above all those before: the greatest is the newest."""


class RowsCopy(CursoredCopy):
    """Copies a table with a state of its own."""

    def __init__(self, plan: TablePlan, options: CommonOptions, replica: str) -> None:
        super().__init__(plan, options, replica)
        self._position = Position()
        self._sizes: list[tuple[int, int]] = []
        self._sized_to = 0
        self._row_bytes = float(_ROW_BYTES_FIRST)
        self._ahead: Ahead | None = None
        self._signature: object = None
        self._mark: tuple[int, TableProgress | None] = (-1, None)
        """Up to where the last span went, and what was known of the table there."""
        self._none_removed: pa.Table | None = None
        self._append = options.mode == "append" and has_closings(plan)
        window = plan.window
        self._windows = -(-window.size // window.slide) if window is not None and window.slide else 1

    def _started(self, cursor: Cursor) -> None:
        super()._started(cursor)
        self._position = cursor.position
        self._sizes, self._sized_to = [], 0
        self._signature = self._ahead = None
        self._mark = (-1, None)

    def written(self, chunk: Chunk) -> None:
        """See `TableCopy`."""
        super().written(chunk)
        self._position = chunk.cursor.position

    def behind(self, goal: int) -> bool:
        """See `TableCopy`."""
        sweeping = self.cursor is not None and self.cursor.sweep_below > 0
        return sweeping or self._position.epoch < goal

    def quiet(self, head: Head) -> bool:
        """See `TableCopy`."""
        if self._signature is None or self._signature != _moved(self.plan, head):
            return False
        self._position = Position.at(head.epoch)
        self._reach(head.epoch)
        return True

    def next_chunk(self, reader: Any, head: Head, *, hurry: bool) -> Chunk | None:
        """See `TableCopy`."""
        assert self.cursor is not None  # noqa: S101 - the follower has begun it
        self._signature = None
        if head.rebuilding(self.shape.name):
            return None  # the target keeps the whole answers of before until the new ones are whole
        while not self._position.whole or self._position.epoch < head.epoch:
            chunk = self._following(reader, head)
            if chunk is not None:
                return chunk
        if self.cursor.sweep_below:
            return self._last(reader)
        self._signature = _moved(self.plan, head)
        return None

    def _following(self, reader: Any, head: Head) -> Chunk | None:
        """Return what changed in the next span of epochs, or its next piece; None: nothing did."""
        few = self._few_changed(head)
        none_left = few is not None and self._position.whole and not self._append
        paged, closing = self._enter_span(reader, head, few)
        nested, first = self._options.json_nested, self._position.whole
        rows, done = self._piece(reader, paged, closing)
        span = self._position if first and not self._append else Position.at(self._position.through)
        removed = self._none_removed if none_left else None
        if removed is None:
            removed = removed_keys(
                reader, self.plan, span, expired_after=self._expired_after, json_nested=nested
            )
            self._none_removed = removed.slice(0, 0)
        if rows.num_rows:
            self._row_bytes = max(1.0, rows.nbytes / rows.num_rows)
        if rows.num_rows or removed.num_rows or not done.whole:
            return self._chunk(rows, removed, done)
        self._position = done
        self._reach(done.epoch)
        return None

    @property
    def _expired_after(self) -> int | None:
        """The epoch behind which rows that expire are taken out; None: they stay.

        What had expired when this copying began was never copied, or is swept out.
        """
        assert self.cursor is not None  # noqa: S101 - the follower has begun it
        return self.cursor.begun if self._options.expired == "delete" else None

    def _piece(self, reader: Any, rows_max: int | None, closing: Closing | None) -> tuple[pa.Table, Position]:
        """Return rows of the span, about `rows_max` of them, and the position behind them."""
        ahead = self._ahead if self._ahead is not None and self._ahead.begin == self._position else None
        if ahead is None:
            several = None
            if rows_max is not None:
                several = max(rows_max, min(_AHEAD_ROWS, int(_AHEAD_BYTES / self._row_bytes)))
            rows, done = changed_rows(
                reader,
                self.plan,
                self._position,
                rows_max=several,
                closing=closing,
                json_nested=self._options.json_nested,
                row_keys=self._options.row_keys,
            )
            ahead = Ahead(self._position, rows, done)
        rows, done, self._ahead = ahead.cut(rows_max)
        return rows, done

    def _few_changed(self, head: Head) -> int | None:
        """Return how many rows changed at most since the last span, if none left; None: ask the store."""
        known, (epoch, before) = head.progress.tables.get(self.shape.name), self._mark
        if known is None or before is None or epoch != self._position.epoch or self.plan.unnests:
            return None
        same = ("fingerprint", "removed", "retired_through", "rebuild", "partial_since", "floor")
        if any(getattr(known, name) != getattr(before, name) for name in same) or known.kept < before.kept:
            return None
        return (known.kept - before.kept) * self._windows

    def _enter_span(self, reader: Any, head: Head, few: int | None) -> tuple[int | None, Closing | None]:
        """Choose the next span, unless one is half copied; return how many rows to take, None: all."""
        bytes_max, whole = self._options.chunk_bytes_max, self._position.whole
        rows_max = max(1, min(self._options.chunk_rows_max, int(bytes_max / self._row_bytes)))
        if self._append:
            after, through = self._position.epoch, self._position.through
            if whole:
                through = closed_span(reader, self.plan, after, head.epoch, rows_max=rows_max)
                self._position = Position(after, through)
            return rows_max, closing_between(reader, self.plan, after, through)
        if not whole:
            return rows_max, None
        if few is not None and few <= rows_max:
            through, size = head.epoch, few
        else:
            through, size = self._span(reader, head, rows_max)
        self._position = Position(self._position.epoch, through)
        self._mark = (through, head.progress.tables.get(self.shape.name) if through == head.epoch else None)
        return (rows_max if size > rows_max else None), None

    def _last(self, reader: Any) -> Chunk:
        """Return the chunk that takes out what this copying did not bring."""
        nothing, nested = Position.at(self._position.epoch), self._options.json_nested
        closing = Closing(None, None) if self._append else None
        rows, _ = changed_rows(
            reader, self.plan, nothing, closing=closing, json_nested=nested, row_keys=self._options.row_keys
        )
        removed = removed_keys(reader, self.plan, nothing, expired_after=None, json_nested=nested)
        return self._chunk(rows, removed, self._position, last=True)

    def _span(self, reader: Any, head: Head, rows_max: int) -> tuple[int, int]:
        """Return the epoch up to which about `rows_max` rows changed, and how many did."""
        at = self._position.epoch
        self._sizes = [(epoch, rows) for epoch, rows in self._sizes if epoch > at]
        if not self._sizes:
            self._sizes = epoch_sizes(
                reader, self.plan, max(at, self._sized_to), head.epoch, expired_after=self._expired_after
            )
            self._sized_to = head.epoch
        total, through = 0, at
        for epoch, rows in self._sizes:
            if total and total + rows > rows_max:
                return through, total
            total, through = total + rows, epoch
        return self._sized_to, total

    def _chunk(self, rows: pa.Table, removed: pa.Table, done: Position, *, last: bool = False) -> Chunk:
        assert self.cursor is not None  # noqa: S101 - the follower has begun it
        if _REVISION in self.shape.key and _REVISION not in removed.column_names:
            # In append mode nothing is removed; the columns are those of the key all the same.
            removed = removed.append_column(_REVISION, pa.nulls(removed.num_rows, pa.int32()))
        cursor = replace(self.cursor, position=done, sweep_below=0 if last else self.cursor.sweep_below)
        generation = cursor.generation
        if _REVISION in self.shape.key and cursor.rounds:
            rows = _revised(rows, cursor.rounds * _REVISIONS)
        return Chunk(
            table=self.shape,
            rows=_versioned(rows.select([*(c.name for c in self.shape.columns), "_epoch"]), generation),
            removed=_versioned(removed, generation),
            cursor=cursor,
            sweep_below=self.cursor.sweep_below if last else 0,
        )


@dataclass(frozen=True)
class Ahead:
    """Rows that were read of a span, from `begin` to `end`. What changes meanwhile comes in a later span."""

    begin: Position
    rows: pa.Table
    end: Position

    def cut(self, rows_max: int | None) -> tuple[pa.Table, Position, Ahead | None]:
        """Return a piece, the position behind it, and the rest. Rows of one hash stay together."""
        if rows_max is None or self.rows.num_rows <= rows_max:
            return self.rows, self.end, None
        hashes = self.rows.column("_hash")
        last = hashes[rows_max - 1].as_py()
        count = pc.sum(pc.less_equal(hashes, last)).as_py()
        if count == self.rows.num_rows:
            return self.rows, self.end, None
        behind = Position(self.begin.epoch, self.begin.through, last)
        return self.rows.slice(0, count), behind, Ahead(behind, self.rows.slice(count), self.end)


def _revised(rows: pa.Table, first: int) -> pa.Table:
    """Return rows with revisions that begin at `first`."""
    at = rows.schema.get_field_index(_REVISION)
    revision = pc.add(rows.column(at).cast(pa.int32()), pa.scalar(first, pa.int32()))
    return rows.set_column(at, _REVISION, revision)


def _versioned(rows: pa.Table, generation: int) -> pa.Table:
    """Return rows with their `_version` in the place of their `_epoch`."""
    version = pc.add(rows.column("_epoch").cast(pa.int64()), version_of(generation, 0))
    return rows.drop_columns(["_epoch"]).append_column("_version", version)


def _moved(plan: TablePlan, head: Head) -> object:
    """Return what differs whenever rows of a table have changed, left or been closed."""
    facts = head.progress.tables.get(plan.name)
    if facts is None or facts.rebuild is not None:
        return None
    return (facts.kept, facts.removed, facts.closed_through, facts.retired_through, facts.fingerprint)
