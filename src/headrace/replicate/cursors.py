"""Where a copying begins: a target's own cursor is taken over, or a new one is made.

And how far it has come since, which is told alike of a table, a view and files.
"""

from __future__ import annotations

from dataclasses import replace

from headrace.errors import HeadraceError
from headrace.replicate.options import CommonOptions
from headrace.replicate.protocol import Chunk, Cursor, Position, ReplicaWriter, version_of
from headrace.replicate.shapes import shape_of
from headrace.sql.plan import TablePlan
from headrace.store.changes import Head

__all__ = ["BEGIN_AGAIN", "CursoredCopy", "first_cursor", "reached_at"]

BEGIN_AGAIN = ("adopt", "rebuild")


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


def reached_at(cursor: Cursor, epoch: int) -> int:
    """Return how far a target is that was copied to up to `epoch`: not quite, while a sweep is to come."""
    return max(0, epoch - 1) if cursor.sweep_below else epoch


class CursoredCopy:
    """What every copying does alike, of rows, of a view and of files; see `TableCopy`."""

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
