"""Copies one table: what changed since the target's cursor, chunk by chunk.

A step takes a chunk from the store, ends the store's transaction, and then talks to the target.
"""

from __future__ import annotations

from typing import Any, Protocol

from headrace.errors import HeadraceError
from headrace.replicate.copying_rows import RowsCopy
from headrace.replicate.copying_views import ViewCopy
from headrace.replicate.options import CommonOptions
from headrace.replicate.protocol import Chunk, Cursor, ReplicaWriter, TableShape
from headrace.sql.plan import TableClass, TablePlan
from headrace.store.changes import Head

__all__ = ["TableCopy", "copy_of"]


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


def copy_of(plan: TablePlan, options: CommonOptions, replica: str) -> TableCopy:
    """Return what copies a table."""
    if plan.kind is TableClass.VIEW:
        return ViewCopy(plan, options, replica)
    return RowsCopy(plan, options, replica)
