"""Which records one read gives, and in which order.

Partitions advance together in record time: batches are chosen in the order of the record times at which they
begin, and nothing is given that lies behind the beginning of a batch that was not chosen. Otherwise one
partition could run hours ahead of another while catching up, and open windows would pile up in the engine.
"""

from __future__ import annotations

import heapq
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from headrace.errors import IntegrityError
from headrace.log.encoding import ROW_COLUMNS, Batch, decode, record_batches
from headrace.log.protocol import ORDERED_ROWS, RECORD_SCHEMA, PartitionRange

__all__ = ["BatchReader", "arrange", "partition_ranges"]

Integers = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class _Found:
    """A batch in the index, from `first_offset` on.

    begins    the highest record time up to its first record
    max_time  the highest record time up to its last record
    """

    begins: int
    partition: int
    first_offset: int
    records: int
    max_time: int
    bytes: int


def partition_ranges(sqlite: sqlite3.Connection, stream: int) -> tuple[PartitionRange, ...]:
    """Return what the partitions of a stream hold, in the order of their numbers."""
    rows = sqlite.execute(
        "SELECT partition, start_offset, end_offset FROM partitions WHERE stream = ? ORDER BY partition",
        (stream,),
    )
    return tuple(PartitionRange(*row) for row in rows)


class BatchReader:
    """Reads one stream over a connection that it is given.

    Keeps the batch in which each position lies, so that reading a large batch in small steps decodes it once.
    """

    def __init__(self, stream: int, name: str, place: str) -> None:
        self._stream = stream
        self._name = name
        self._place = place
        self._kept: dict[int, Batch] = {}

    def choose(
        self,
        sqlite: sqlite3.Connection,
        ranges: Sequence[PartitionRange],
        positions: Mapping[int, int],
        rows_max: int,
        bytes_max: int,
    ) -> tuple[list[Batch], Integers, int | None]:
        """Return batches that hold at least what one read may give, in the order in which they begin.

        With them: when each begins, and when the first one that was left out begins.
        """
        heap = []
        for held in ranges:
            position = positions[held.partition]
            if position < held.end:
                indexed = self._indexed(sqlite, held, position)
                first = next(indexed)
                heap.append((first.begins, held.partition, first, indexed))
        heapq.heapify(heap)
        chosen: list[_Found] = []
        enough = _Enough(rows_max, bytes_max)
        while heap and not enough.before(heap[0][0]):
            _, partition, found, indexed = heap[0]
            chosen.append(found)
            enough.add(found)
            following = next(indexed, None)
            if following is None:
                heapq.heappop(heap)
            else:
                heapq.heapreplace(heap, (following.begins, partition, following, indexed))
        bound = heap[0][0] if heap else None
        begins = np.fromiter((found.begins for found in chosen), np.int64, len(chosen))
        return self._fetched(sqlite, chosen), begins, bound

    def _indexed(self, sqlite: sqlite3.Connection, held: PartitionRange, position: int) -> Iterator[_Found]:
        """Give what the index says of the batches from `position` on; together they reach to the end."""
        partition = held.partition
        here = (self._stream, partition)
        rows = sqlite.execute(
            "SELECT first_offset, records, first_time, max_time, bytes FROM batches "
            "WHERE stream = ? AND partition = ? AND first_offset >= (SELECT max(first_offset) FROM batches "
            "WHERE stream = ? AND partition = ? AND first_offset <= ?) ORDER BY first_offset",
            (*here, *here, position),
        )
        highest = None
        for first_offset, records, first_time, max_time, size in rows:
            skip = position - first_offset
            if not 0 <= skip < records:
                break
            begins, left = first_time, size * (records - skip) // records
            if skip and max_time != first_time:
                begins = self._time_at(sqlite, partition, first_offset, position)
            begins = begins if highest is None else max(begins, highest)
            highest = max(max_time, begins)
            yield _Found(begins, partition, position, records - skip, highest, left)
            position = first_offset + records
        if position != held.end:
            raise IntegrityError(
                f"{self._place}, partition {partition}: no batch holds offset {position}",
                fix="keep the file, and restore the log from a backup",
            )

    def _time_at(self, sqlite: sqlite3.Connection, partition: int, first_offset: int, position: int) -> int:
        """Return the record time at `position`, which lies in the batch that starts at `first_offset`."""
        kept = self._kept.get(partition)
        if kept is None or not kept.first_offset <= position < kept.first_offset + kept.records:
            row = sqlite.execute(
                f"SELECT {ROW_COLUMNS} FROM batches WHERE stream = ? AND partition = ? AND first_offset = ?",
                (self._stream, partition, first_offset),
            ).fetchone()
            kept = self._kept[partition] = decode(row, self._place)
        return kept.time_at(position - kept.first_offset)

    def _fetched(self, sqlite: sqlite3.Connection, chosen: list[_Found]) -> list[Batch]:
        """Return the chosen batches themselves, in the same order."""
        spans: dict[int, tuple[int, int]] = {}
        for found in chosen:
            first = spans.get(found.partition, (found.first_offset, 0))[0]
            spans[found.partition] = (first, found.first_offset + found.records)
        batches: dict[tuple[int, int], Batch] = {}
        for partition, (first, end) in spans.items():
            at = first
            kept = self._kept.get(partition)
            if kept is not None and kept.first_offset <= at < kept.first_offset + kept.records:
                batches[partition, at] = kept.since(at - kept.first_offset)
                at = kept.first_offset + kept.records
            if at >= end:
                continue
            here = (self._stream, partition)
            rows = sqlite.execute(
                f"SELECT {ROW_COLUMNS} FROM batches WHERE stream = ? AND partition = ? AND first_offset < ? "
                "AND first_offset >= (SELECT max(first_offset) FROM batches "
                "WHERE stream = ? AND partition = ? AND first_offset <= ?) ORDER BY first_offset",
                (*here, end, *here, at),
            )
            for row in rows:
                batch = decode(row, self._place)
                batches[partition, at] = batch.since(at - batch.first_offset)
                at = batch.first_offset + batch.records
        try:
            return [batches[found.partition, found.first_offset] for found in chosen]
        except KeyError as missing:
            raise IntegrityError(
                f"{self._place}, partition and offset {missing.args[0]}: the index names a missing batch",
                fix="keep the file, and restore the log from a backup",
            ) from missing

    def keep(self, batches: Sequence[Batch], positions: Mapping[int, int]) -> None:
        """Keep those of `batches` in which a position lies: the next read need not decode them again."""
        self._kept = {
            batch.partition: batch
            for batch in batches
            if batch.first_offset < positions[batch.partition] < batch.first_offset + batch.records
        }


class _Enough:
    """Tells when the chosen batches hold enough records before a moment.

    A batch that reaches beyond the moment gives only a part, taken as its share of time. Without this,
    partitions whose batches overlap for long would give a few records a read, decoding all of them for each.
    """

    def __init__(self, rows_max: int, bytes_max: int) -> None:
        self._rows_max = rows_max
        self._bytes_max = bytes_max
        self._rows = 0
        self._bytes = 0
        self._open: list[_Found] = []

    def add(self, found: _Found) -> None:
        self._open.append(found)

    def before(self, moment: int) -> bool:
        """Return whether there is enough; moments never go back from call to call."""
        still_open = []
        rows, size = 0.0, 0.0
        for found in self._open:
            if found.max_time <= moment:
                self._rows += found.records
                self._bytes += found.bytes
            else:
                still_open.append(found)
                share = (moment - found.begins) / (found.max_time - found.begins)
                rows += found.records * share
                size += found.bytes * share
        self._open = still_open
        return self._rows + rows >= self._rows_max or self._bytes + size >= self._bytes_max


def arrange(
    batches: Sequence[Batch], begins: Integers, bound: int | None, rows_max: int, bytes_max: int
) -> pa.Table:
    """Return the records to give, ordered as `Slice` says; of every partition a prefix."""
    if not batches:
        return RECORD_SCHEMA.empty_table()
    measures = [batch.measures() for batch in batches]
    times = np.concatenate([part for part, _ in measures])
    sizes = np.concatenate([part for _, part in measures])
    counts = np.fromiter((batch.records for batch in batches), np.int64, len(batches))
    partitions = np.repeat(np.fromiter((b.partition for b in batches), np.int64, len(batches)), counts)
    # A record's own time may lie before that of one in front of it (a load, a clock stepped back). It counts
    # as no earlier than those, or it would have to be given before them.
    reached = np.maximum(times, np.repeat(begins, counts))
    starts = np.cumsum(counts) - counts
    for at, batch in zip(starts, batches, strict=True):
        if batch.times is not None:
            span = slice(at, at + batch.records)
            reached[span] = np.maximum.accumulate(reached[span])
    order = np.arange(len(times))
    if not _sorted(reached, partitions):
        order = np.lexsort((partitions, reached))  # stable: offsets of a partition stay in order
        reached, sizes = reached[order], sizes[order]
    count = len(times) if bound is None else int(np.searchsorted(reached, bound, side="right"))
    count = min(count, rows_max, int(np.searchsorted(np.cumsum(sizes), bytes_max, side="right")))
    picked = order[: max(count, 1)]
    given = np.bincount(np.repeat(np.arange(len(batches)), counts)[picked], minlength=len(batches))
    parts = [batch.until(int(taken)) for batch, taken in zip(batches, given, strict=True) if taken]
    table = pa.Table.from_batches(record_batches(parts))
    if len(picked) > ORDERED_ROWS:
        # To bring the bytes of many records into another order costs as much as to decompress them.
        return table
    chosen = np.sort(picked)  # as they stand in the table
    times, partitions = times[chosen], partitions[chosen]
    if _sorted(times, partitions):
        return table
    return table.take(pa.array(np.lexsort((partitions, times))))


def _sorted(times: Integers, partitions: Integers) -> bool:
    later = times[1:] > times[:-1]
    same = times[1:] == times[:-1]
    return bool((later | (same & (partitions[1:] >= partitions[:-1]))).all())
