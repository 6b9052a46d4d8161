"""Tables whose rows executors write into files: the store is given the list of them, and no rows."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Protocol

import pyarrow as pa

from headrace.engine.local.appended import RowsTable
from headrace.engine.local.compute import Delta, EpochContext
from headrace.errors import InternalError
from headrace.sql.plan import TablePlan
from headrace.store.outside import RowFile, list_files

__all__ = ["OutsideTable", "Stage"]


class Stage(Protocol):
    """Where the files of one table are written. It is pickled and sent to executors; see `RowsStage`."""

    def prepare(self, listed: Collection[str]) -> None:
        """Make the place, and take away files that are not `listed`; the driver calls it, before others."""

    def write(self, rows: pa.Table, epoch: int) -> tuple[RowFile, ...]:
        """Write rows of an epoch, durably, into files of names that were never given before."""

    def require(self, files: Iterable[RowFile]) -> None:
        """Raise RefusedError unless the driver sees the files as they were written."""


class OutsideTable(RowsTable):
    """Writes a table of class rows, without a key, whose rows are in files."""

    def __init__(self, plan: TablePlan, stage: Stage) -> None:
        super().__init__(plan)
        self._stage = stage

    def apply(self, context: EpochContext, delta: Delta) -> int:
        """Write down which files there are. What the driver computed itself is written into one first."""
        files = delta.files
        if delta.rows.num_rows:  # a table that is new is computed from the log without executors
            files += self._stage.write(delta.rows, context.epoch)
        if any(file.epoch != context.epoch for file in files):
            raise InternalError(f"table '{self.plan.name}' was given files of another epoch")
        self._stage.require(files)
        list_files(context.connection, self.plan.name, files)
        return sum(file.rows for file in files)
