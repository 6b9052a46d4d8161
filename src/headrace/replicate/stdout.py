"""Changes as lines of JSON on the standard output, for `jq`, `grep` and eyes.

A line is one of those of `headrace.replicate.files`, with the name of its table. What was printed cannot be
asked for, so every run prints the tables from their beginning.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass

from headrace.errors import RefusedError
from headrace.replicate.options import CommonOptions
from headrace.replicate.plain import changes_of, sound
from headrace.replicate.protocol import Chunk, Cursor, ReplicaWriter, Task, fenced

__all__ = ["StdoutReplica"]


@dataclass(frozen=True, kw_only=True)
class StdoutReplica(CommonOptions):
    """Prints the changes of tables."""

    def open(self, task: Task) -> ReplicaWriter:
        """See `Replica`."""
        return _StdoutWriter(task)


class _StdoutWriter:
    def __init__(self, task: Task) -> None:
        self._task = task
        self._cursors: dict[str, Cursor] = {}

    def cursors(self) -> Mapping[str, Cursor]:
        """See `ReplicaWriter`: a process has no other one to be replaced by."""
        return dict(self._cursors)

    def take(self, table: str, seen: Cursor | None, cursor: Cursor) -> None:
        """See `ReplicaWriter`."""
        if self._cursors.get(table) != seen:
            raise fenced(table)
        self._cursors[table] = cursor

    def write(self, chunk: Chunk) -> None:
        """See `ReplicaWriter`."""
        table = chunk.table.name
        if self._cursors.get(table) == chunk.cursor:
            return
        if not chunk.cursor.same_writer(self._cursors.get(table)):
            raise fenced(table)
        try:
            lead = f'"table":{json.dumps(table, ensure_ascii=False)},'
            for change in changes_of(sound(chunk, self._task.set_aside), lead=lead):
                sys.stdout.write(change + "\n")
            sys.stdout.flush()
        except BrokenPipeError:
            # What is still in the buffer has nobody to go to either, and Python would say so when it ends.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            what = "nobody reads the standard output any more"
            raise RefusedError(what, fix="start the run again, with a reader behind it") from None
        except OSError as error:
            # Not waited for: half a line may be written, and only a run of its own begins the lines anew.
            what = f"the standard output cannot be written: {error.strerror or error}"
            raise RefusedError(what, fix="make room where it goes, and start the run again") from error
        self._cursors[table] = chunk.cursor

    def interrupt(self) -> None:
        """See `ReplicaWriter`."""

    def close(self) -> None:
        """See `ReplicaWriter`."""
