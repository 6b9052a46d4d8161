"""What retention deletes: whole batches, too old or too many, and never what a reader still needs."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta

__all__ = ["Limits", "Retention", "positions_of_readers"]

# One transaction deletes no more than this, so that an append never waits long for the lock.
_DELETED_BATCHES_MAX = 500
_DELETED_BYTES_MAX = 64 * 1024 * 1024


@dataclass(frozen=True)
class Limits:
    """How long and how much a stream keeps; None: no limit. Past `bytes_max` an append is refused.

    Sizes are as stored, for all partitions together.
    """

    age: timedelta | None = None
    bytes: int | None = None
    bytes_max: int | None = None


def positions_of_readers(sqlite: sqlite3.Connection, stream: int) -> dict[str, dict[int, int]]:
    """Return the positions that readers of `stream` published."""
    positions: dict[str, dict[int, int]] = {}
    rows = sqlite.execute(
        "SELECT reader, partition, position FROM readers WHERE stream = ? ORDER BY reader, partition",
        (stream,),
    )
    for reader, partition, position in rows:
        positions.setdefault(reader, {})[partition] = position
    return positions


def _needed_from(readers: Mapping[str, Mapping[int, int]], partition: int) -> int | None:
    """Return the least position in `partition`; None when nobody reads.

    A reader that published no position for it has read nothing of it.
    """
    return min((positions.get(partition, 0) for positions in readers.values()), default=None)


@dataclass(frozen=True)
class Retention:
    """Deletes from one stream, inside a write transaction that the caller holds."""

    stream: int
    limits: Limits

    def apply(self, sqlite: sqlite3.Connection, now_us: int) -> bool:
        """Delete what the limits allow; return whether there is more to delete (call again)."""
        readers = positions_of_readers(sqlite, self.stream)
        stored = stored_bytes(sqlite, self.stream)
        oldest_us = None if self.limits.age is None else now_us - self.limits.age // timedelta(microseconds=1)
        ends = {partition: _needed_from(readers, partition) for partition in self._partitions(sqlite)}
        behind: dict[int, tuple[int, int]] = {}
        deleted = freed = 0
        while ends and deleted < _DELETED_BATCHES_MAX and freed < _DELETED_BYTES_MAX:
            heads = [head for partition in list(ends) if (head := self._head(sqlite, partition, ends))]
            if not heads:
                return False
            heads = [(self._aged(sqlite, head, now_us, behind), *head[1:]) for head in heads]
            max_time, batch, partition, first_offset, records, size = min(heads)
            too_old = oldest_us is not None and max_time < oldest_us
            too_much = self.limits.bytes is not None and stored - freed > self.limits.bytes
            if not (too_old or too_much):
                return False
            sqlite.execute("DELETE FROM batches WHERE id = ?", (batch,))
            sqlite.execute(
                "UPDATE partitions SET start_offset = ?, stored_bytes = stored_bytes - ? "
                "WHERE stream = ? AND partition = ?",
                (first_offset + records, size, self.stream, partition),
            )
            deleted, freed = deleted + 1, freed + size
        return bool(ends)

    def _partitions(self, sqlite: sqlite3.Connection) -> list[int]:
        rows = sqlite.execute("SELECT partition FROM partitions WHERE stream = ?", (self.stream,))
        return [partition for (partition,) in rows]

    def _head(
        self, sqlite: sqlite3.Connection, partition: int, ends: dict[int, int | None]
    ) -> tuple[int, int, int, int, int, int] | None:
        """Return the oldest batch of `partition`: max_time, id, partition, first_offset, records, size.

        None when nothing of it may be deleted; the partition is then dropped from `ends`.
        """
        row = sqlite.execute(
            "SELECT max_time, id, partition, first_offset, records, stored_bytes FROM batches "
            "WHERE stream = ? AND partition = ? ORDER BY first_offset LIMIT 1",
            (self.stream, partition),
        ).fetchone()
        needed_from = ends[partition]
        if row is None or (needed_from is not None and row[3] + row[4] > needed_from):
            del ends[partition]
            return None
        head: tuple[int, int, int, int, int, int] = row
        return head

    def _aged(
        self,
        sqlite: sqlite3.Connection,
        head: tuple[int, int, int, int, int, int],
        now_us: int,
        behind: dict[int, tuple[int, int]],
    ) -> int:
        """Return the time by which `head` is old enough.

        One of a clock that was ahead is as old as the first batch behind it that is not in the future, else
        it would hold all of them until its own time has come. `behind` remembers that one's offset and time
        per partition.
        """
        max_time, _, partition, first_offset, _, _ = head
        if max_time <= now_us:
            return max_time
        if behind.get(partition, (-1, 0))[0] < first_offset:
            row = sqlite.execute(
                "SELECT first_offset, max_time FROM batches WHERE stream = ? AND partition = ? "
                "AND first_offset > ? AND max_time <= ? ORDER BY first_offset LIMIT 1",
                (self.stream, partition, first_offset, now_us),
            ).fetchone()
            behind[partition] = row or (2**63 - 1, max_time)
        return min(max_time, behind[partition][1])


def stored_bytes(sqlite: sqlite3.Connection, stream: int) -> int:
    """Return how much the stream's records take in the file."""
    row = sqlite.execute("SELECT coalesce(sum(stored_bytes), 0) FROM partitions WHERE stream = ?", (stream,))
    return int(row.fetchone()[0])
