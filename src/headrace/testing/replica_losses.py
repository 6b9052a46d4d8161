"""A replica whose connection is lost where a test says; part of `headrace.testing.replicas`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from headrace.errors import RefusedError
from headrace.replicate.options import CommonOptions
from headrace.replicate.protocol import Chunk, Cursor, ReplicaWriter, Task, TogetherWriter
from headrace.testing.pipeline_test import PipelineTest
from headrace.testing.replica_runs import Kept, catch_up, following

__all__ = ["Losing", "follow_until_it_holds"]

LOST = "the connection was lost"


def follow_until_it_holds(test: PipelineTest, losing: Any, *, again: str | None = None) -> None:
    """Follow, with another follower after each loss, until all was copied."""
    told = Kept()
    while True:
        wanted = None if told.begun.is_set() else again
        with following(test, losing, told=told, again=wanted) as follower:
            try:
                catch_up(follower)
                return
            except RefusedError as error:
                if error.message != LOST:
                    raise


class Losing:
    """A replica whose connection is lost before or after a call where `lose` says so.

    It is asked with the place: `before` or `after`, what is called, and for what.
    """

    def __init__(self, options: CommonOptions, lose: Callable[[str], bool]) -> None:
        self.lose, self.losses = lose, 0
        self._options = options

    def __getattr__(self, name: str) -> Any:
        return getattr(self._options, name)

    def open(self, task: Task) -> ReplicaWriter:
        """Open the replica, with a writer that may lose its connection."""
        writer = self.lossy("open", lambda: self._options.open(task))  # type: ignore[attr-defined]
        if isinstance(writer, TogetherWriter):
            return LosingTogetherWriter(self, writer)
        return LosingWriter(self, writer)

    def lossy(self, place: str, call: Callable[[], Any]) -> Any:
        """Make a call, or lose the connection before or after it."""
        if self.lose(f"before {place}"):
            self.losses += 1
            raise RefusedError(LOST)  # ends the follower: a crash, not a pause
        result = call()
        if self.lose(f"after {place}"):
            self.losses += 1
            if hasattr(result, "close"):
                result.close()
            raise RefusedError(LOST)
        return result


class LosingWriter:
    """See `Losing`."""

    def __init__(self, losing: Losing, writer: ReplicaWriter) -> None:
        self._losing = losing
        self._writer = writer

    def cursors(self) -> Mapping[str, Cursor]:
        """See `ReplicaWriter`."""
        found: Mapping[str, Cursor] = self._losing.lossy("cursors", self._writer.cursors)
        return found

    def take(self, table: str, seen: Cursor | None, cursor: Cursor) -> None:
        """See `ReplicaWriter`."""
        self._losing.lossy(f"take {table}", lambda: self._writer.take(table, seen, cursor))

    def write(self, chunk: Chunk) -> None:
        """See `ReplicaWriter`."""
        self._losing.lossy(place_of([chunk]), lambda: self._writer.write(chunk))

    def interrupt(self) -> None:
        """See `ReplicaWriter`."""
        self._writer.interrupt()

    def close(self) -> None:
        """See `ReplicaWriter`."""
        self._writer.close()


class LosingTogetherWriter(LosingWriter):
    """See `Losing`: of a writer that takes chunks of several tables."""

    def __init__(self, losing: Losing, writer: TogetherWriter) -> None:
        super().__init__(losing, writer)
        self._together = writer

    def write_together(self, chunks: Sequence[Chunk]) -> None:
        """See `TogetherWriter`."""
        self._losing.lossy(place_of(chunks), lambda: self._together.write_together(chunks))


def place_of(chunks: Sequence[Chunk]) -> str:
    """Return the place at which these chunks are written."""
    call = "sweep" if any(chunk.sweep_below for chunk in chunks) else "write"
    return " ".join([call, *(f"{chunk.table.name} {chunk.cursor.position}" for chunk in chunks)])
