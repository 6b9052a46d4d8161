"""Copies a table whose rows executors have written into files: whole files, by the store's list of them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from headrace.errors import RefusedError
from headrace.replicate.columns import VERSION, arrow_schema
from headrace.replicate.cursors import CursoredCopy
from headrace.replicate.options import CommonOptions
from headrace.replicate.protocol import Chunk, Cursor, Position, ReplicaWriter
from headrace.sql.plan import TablePlan
from headrace.store.changes import Head
from headrace.store.outside import files_after

__all__ = ["FilesCopy"]

_FILES_MAX = 500
"""About so many files come into a target by one commit."""


class FilesCopy(CursoredCopy):
    """See `TableCopy`. Nothing is copied again: the files go into the target, and are nowhere else."""

    def __init__(self, plan: TablePlan, options: CommonOptions, replica: str) -> None:
        super().__init__(plan, options, replica)
        self._looked_at = -1
        self._empty = arrow_schema(self.shape, signed=True).empty_table()

    def begin(self, writer: ReplicaWriter, seen: Cursor | None, head: Head, again: str | None) -> None:
        """See `TableCopy`. Raises RefusedError for rows that would have to be taken out of the target."""
        if again is not None and seen is not None:
            raise RefusedError(
                f"replica '{self._replica}': the rows of '{self.shape.name}' that the target has cannot be "
                "replaced: executors have written them, and they are nowhere else",
                fix="give the table another name: that one is computed from the log",
            )
        super().begin(writer, seen, head, None)
        self._looked_at = -1

    def _reach(self, epoch: int) -> None:
        self.reached = epoch  # no sweep is to come: nothing is taken out of the target

    def quiet(self, head: Head) -> bool:
        """See `TableCopy`."""
        return self._looked_at == head.epoch

    def next_chunk(self, reader: Any, head: Head, *, hurry: bool) -> Chunk | None:
        """See `TableCopy`."""
        assert self.cursor is not None  # noqa: S101 - the follower has begun it
        if head.rebuilding(self.shape.name):
            return None
        files = files_after(reader, self.shape.name, self.cursor.position.epoch, files_max=_FILES_MAX)
        if not files:
            self._looked_at = self.reached = head.epoch
            return None
        return Chunk(
            table=self.shape,
            rows=self._empty,
            removed=self._empty.select([VERSION.name]),
            cursor=replace(self.cursor, position=Position.at(files[-1].epoch)),
            files=tuple(files),
        )

    def written(self, chunk: Chunk) -> None:
        """See `TableCopy`."""
        super().written(chunk)
        self.rows_sent += sum(file.rows for file in chunk.files)

    def outrun(self, cursor: Cursor, head: Head) -> bool:
        """See `TableCopy`. Such tables keep no rows that could expire."""
        return False

    def behind(self, goal: int) -> bool:
        """See `TableCopy`."""
        return self.reached < goal
