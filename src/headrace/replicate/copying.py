"""Copies one table: what changed since the target's cursor, chunk by chunk.

A step takes a chunk from the store, ends the store's transaction, and then talks to the target.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import Any, Protocol

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from headrace.errors import DeclarationError, HeadraceError, Problem
from headrace.replicate.options import CommonOptions
from headrace.replicate.protocol import Chunk, Cursor, Position, ReplicaWriter, TableShape, version_of
from headrace.replicate.shapes import shape_of
from headrace.replicate.viewdiff import difference, repeated_keys
from headrace.sql.plan import TableClass, TablePlan
from headrace.store.changes import (
    Closing,
    Head,
    changed_rows,
    closed_span,
    closing_between,
    epoch_sizes,
    has_closings,
    removed_keys,
    view_rows,
)
from headrace.store.names import quoted
from headrace.store.progress import TableProgress

__all__ = ["BEGIN_AGAIN", "OF_DATA", "TableCopy", "copy_of", "first_cursor", "reached_at"]

BEGIN_AGAIN = ("adopt", "rebuild")
_ROW_BYTES_FIRST = 256
_AHEAD_ROWS = 50_000
_AHEAD_BYTES = 16_000_000
"""Of a span that is sent in smaller pieces, so much is read at once: a reading looks at all of the span."""
OF_DATA = (duckdb.DataError, duckdb.InvalidInputException)
"""What DuckDB raises when a query fails on a value; its text holds that value."""
_REVISION = "_revision"
_REVISIONS = 1_000_000
"""Revisions of a copying that began anew are above all those before: the greatest is the newest."""


class TableCopy(Protocol):
    """Copies a table or a view.

    `problem` says why nothing of it is copied, "" when it is; `failure` is that as an error, where somebody
    has to do something about it. The other tables of the replica go on.
    """

    plan: TablePlan
    shape: TableShape
    cursor: Cursor | None
    reached: int
    rows_sent: int
    problem: str
    failure: HeadraceError | None

    def begin(self, writer: ReplicaWriter, seen: Cursor | None, head: Head, again: str | None) -> None:
        """Take the table over in the target; `again` (see `BEGIN_AGAIN`) copies all of it."""

    def quiet(self, head: Head) -> bool:
        """Return whether nothing can be new, without asking the store."""

    def next_chunk(self, reader: Any, head: Head, *, hurry: bool) -> Chunk | None:
        """Return what is to be written next, read from a snapshot of the store; None: nothing for now."""

    def written(self, chunk: Chunk) -> None:
        """Take note that a chunk is durable."""

    def outrun(self, cursor: Cursor, head: Head) -> bool:
        """Return whether the target holds rows that expired, and the store does not say which any more."""

    def behind(self, goal: int) -> bool:
        """Return whether the target still lacks something that the store had at epoch `goal`."""


def reached_at(cursor: Cursor, epoch: int) -> int:
    """Return how far a target is that was copied to up to `epoch`: not quite, while a sweep is to come."""
    return max(0, epoch - 1) if cursor.sweep_below else epoch


def copy_of(plan: TablePlan, options: CommonOptions, replica: str) -> TableCopy:
    """Return what copies a table."""
    if plan.kind is TableClass.VIEW:
        return _ViewCopy(plan, options, replica)
    return _RowsCopy(plan, options, replica)


class _Copy:
    def __init__(self, plan: TablePlan, options: CommonOptions, replica: str) -> None:
        self.plan = plan
        self.shape = shape_of(plan, options)
        self.cursor: Cursor | None = None
        self.reached = 0
        self.rows_sent = 0
        self.problem = ""
        self.failure: HeadraceError | None = None
        self._options = options
        self._replica = replica

    def begin(self, writer: ReplicaWriter, seen: Cursor | None, head: Head, again: str | None) -> None:
        """See `TableCopy`."""
        cursor = first_cursor(self._replica, seen, head, again)
        writer.take(self.shape.name, seen, cursor)
        self._started(cursor)

    def _started(self, cursor: Cursor) -> None:
        self.cursor = cursor
        self._reach(cursor.position.epoch)

    def _reach(self, epoch: int) -> None:
        self.reached = epoch if self.cursor is None else reached_at(self.cursor, epoch)

    def written(self, chunk: Chunk) -> None:
        """See `TableCopy`."""
        self.cursor = chunk.cursor
        self._reach(chunk.cursor.position.epoch)
        self.rows_sent += chunk.rows.num_rows

    def outrun(self, cursor: Cursor, head: Head) -> bool:
        """See `TableCopy`. What a replica took over before its deletes were declared is not known either."""
        facts = head.progress.tables.get(self.shape.name)
        since = None if facts is None else facts.expired.get(self._replica)
        return since is not None and cursor.begun < since and cursor.position.epoch <= since


def first_cursor(replica: str, seen: Cursor | None, head: Head, again: str | None) -> Cursor:
    """Return the cursor with which a writer begins."""
    generation = 1 if seen is None else seen.generation + 1
    ours = version_of(generation, 0)
    anew = Cursor(
        store_id=head.store_id,
        replica=replica,
        generation=generation,
        position=Position(),
        begun=head.epoch,
        kept_below=ours,  # a view is swept whenever it is sent as a whole: what others wrote is not its own
    )
    if seen is None:
        return anew
    if again == "rebuild":
        return replace(anew, sweep_below=ours, kept_below=0, rounds=seen.rounds + 1)
    if again is not None:
        return replace(anew, rounds=seen.rounds + 1)
    # Of a store that was set back, what it does from here on is behind where it stands.
    return replace(seen, generation=generation, begun=min(seen.begun, head.epoch))


class _RowsCopy(_Copy):
    """Copies a table with a state of its own."""

    def __init__(self, plan: TablePlan, options: CommonOptions, replica: str) -> None:
        super().__init__(plan, options, replica)
        self._position = Position()
        self._sizes: list[tuple[int, int]] = []
        self._sized_to = 0
        self._row_bytes = float(_ROW_BYTES_FIRST)
        self._ahead: _Ahead | None = None
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
            ahead = _Ahead(self._position, rows, done)
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
class _Ahead:
    """Rows that were read of a span, from `begin` to `end`. What changes meanwhile comes in a later span."""

    begin: Position
    rows: pa.Table
    end: Position

    def cut(self, rows_max: int | None) -> tuple[pa.Table, Position, _Ahead | None]:
        """Return a piece, the position behind it, and the rest. Rows of one hash stay together."""
        if rows_max is None or self.rows.num_rows <= rows_max:
            return self.rows, self.end, None
        hashes = self.rows.column("_hash")
        last = hashes[rows_max - 1].as_py()
        count = pc.sum(pc.less_equal(hashes, last)).as_py()
        if count == self.rows.num_rows:
            return self.rows, self.end, None
        behind = Position(self.begin.epoch, self.begin.through, last)
        return self.rows.slice(0, count), behind, _Ahead(behind, self.rows.slice(count), self.end)


def _revised(rows: pa.Table, first: int) -> pa.Table:
    """Return rows with revisions that begin at `first`."""
    at = rows.schema.get_field_index(_REVISION)
    revision = pc.add(rows.column(at).cast(pa.int32()), pa.scalar(first, pa.int32()))
    return rows.set_column(at, _REVISION, revision)


def _versioned(rows: pa.Table, generation: int) -> pa.Table:
    """Return rows with their `_version` in the place of their `_epoch`."""
    version = pc.add(rows.column("_epoch").cast(pa.int64()), version_of(generation, 0))
    return rows.drop_columns(["_epoch"]).append_column("_version", version)


class _ViewCopy(_Copy):
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


def _moved(plan: TablePlan, head: Head) -> object:
    """Return what differs whenever rows of a table have changed, left or been closed."""
    facts = head.progress.tables.get(plan.name)
    if facts is None or facts.rebuild is not None:
        return None
    return (facts.kept, facts.removed, facts.closed_through, facts.retired_through, facts.fingerprint)
