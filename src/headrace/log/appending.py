"""How records become batches in the file: partitions, record times, offsets."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from headrace.errors import RefusedError
from headrace.log.encoding import ROW_COLUMNS, EncodedBatch, encode
from headrace.log.placing import Placing
from headrace.log.protocol import Appended, LogFullError
from headrace.log.retention import Limits, positions_of_readers, stored_bytes

__all__ = ["Appender", "Prepared", "microseconds_of"]

_RECORD_BYTES_MAX = 64 * 1024 * 1024
_CLOCK_SLACK_US = 5_000_000
"""So far may a clock step back, or that of another process be behind, and record times stay as they are."""

_EPOCH = datetime.fromisoformat("1970-01-01T00:00:00+00:00")
_INSERT = f"INSERT INTO batches (stream, {ROW_COLUMNS}) VALUES (?{', ?' * len(ROW_COLUMNS.split(','))})"


def microseconds_of(moment: datetime) -> int:
    """Return `moment` in microseconds since 1970, exactly."""
    return (moment - _EPOCH) // timedelta(microseconds=1)


@dataclass(frozen=True)
class _Times:
    """Record times that were given; NULL ones are filled in when the records are appended."""

    given: npt.NDArray[np.int64] | None
    missing: npt.NDArray[np.bool_] | None

    def slice(self, rows: slice) -> _Times:
        return _Times(
            None if self.given is None else self.given[rows],
            None if self.missing is None else self.missing[rows],
        )

    def filled(self, clock_time: int) -> int | npt.NDArray[np.int64]:
        if self.given is None:
            return clock_time
        times = self.given if self.missing is None else np.where(self.missing, clock_time, self.given)
        first = int(times[0])
        return first if (times == first).all() else times

    @property
    def needs_clock(self) -> bool:
        return self.given is None or self.missing is not None


@dataclass(frozen=True)
class Prepared:
    """Encoded batches by partition; everything but what only the write lock can tell."""

    batches: tuple[tuple[int, EncodedBatch, _Times], ...]
    stored_bytes: int


class Appender:
    """Writes records of one stream over a connection that it is given."""

    def __init__(self, stream: int, place: str, limits: Limits) -> None:
        self._stream = stream
        self._place = place
        self._limits = limits
        self._placing = Placing(place)

    def prepared(self, records: pa.Table, partitions: int) -> Prepared:
        """Encode `records` for so many partitions. Raises RefusedError for what cannot be appended."""
        records = self._placing.append_table(records)
        if records.num_rows == 0:
            return Prepared((), 0)
        self._require_sizes(records)
        batches = []
        for partition, rows in self._by_partition(records, partitions):
            times = _times_of(rows.column("record_time"))
            batches += [(partition, batch, times.slice(part)) for part, batch in encode(rows)]
        return Prepared(tuple(batches), sum(len(batch.values) for _, batch, _ in batches))

    def _require_sizes(self, records: pa.Table) -> None:
        largest = pc.max(pc.binary_length(records.column("value"))).as_py() or 0
        if largest > _RECORD_BYTES_MAX:
            raise RefusedError(
                f"{self._place}: a record of {largest:,} bytes; at most {_RECORD_BYTES_MAX:,} are taken",
                fix="split the record, or put its content into a file and its path into the record",
            )

    def _by_partition(self, records: pa.Table, partitions: int) -> list[tuple[int, pa.Table]]:
        """Return the records of each partition, in their order."""
        given, keys = records.column("partition"), records.column("key")
        unplaced = given.null_count == len(given)
        if unplaced and (partitions == 1 or keys.null_count == len(keys)):
            return [(self._placing.next_turn(partitions), records)]
        target = self._placing.targets(given, keys, partitions)
        if (target == target[0]).all():
            return [(int(target[0]), records)]
        order = np.argsort(target, kind="stable")
        sorted_records = records.take(pa.array(order))
        ends = np.searchsorted(target[order], np.arange(partitions + 1))
        return [
            (partition, sorted_records.slice(start, end - start))
            for partition, (start, end) in enumerate(pairwise(ends))
            if end > start
        ]

    def fits(self, sqlite: sqlite3.Connection, wanted: int) -> bool:
        """Return whether so many more bytes stay within the stream's limit."""
        limit = self._limits.bytes_max
        return limit is None or stored_bytes(sqlite, self._stream) + wanted <= limit

    def append(self, sqlite: sqlite3.Connection, prepared: Prepared, now: Callable[[], datetime]) -> Appended:
        """Write the batches, inside a write transaction that the caller holds."""
        if prepared.batches and not self.fits(sqlite, prepared.stored_bytes):
            raise self._full(sqlite)
        rows = sqlite.execute(
            "SELECT partition, end_offset, clock_time FROM partitions WHERE stream = ?", (self._stream,)
        )
        state = {partition: (end, clock_time) for partition, end, clock_time in rows}
        # Asked under the write lock. After a larger step back the clock was ahead before, and is followed:
        # records of now would be late until that time comes.
        now_us = microseconds_of(now())
        firsts: dict[int, int] = {}
        stored: dict[int, int] = {}
        for partition, batch, times in prepared.batches:
            end, clock_time = state[partition]
            if times.needs_clock:
                clock_time = max(now_us, clock_time) if clock_time - now_us <= _CLOCK_SLACK_US else now_us
            row = batch.row(partition, end, times.filled(clock_time))
            sqlite.execute(_INSERT, (self._stream, *row))
            firsts.setdefault(partition, end)
            stored[partition] = stored.get(partition, 0) + row[6]
            state[partition] = (end + batch.records, clock_time)
        sqlite.executemany(
            "UPDATE partitions SET end_offset = ?, clock_time = ?, stored_bytes = stored_bytes + ? "
            "WHERE stream = ? AND partition = ?",
            [(*state[partition], stored[partition], self._stream, partition) for partition in stored],
        )
        return Appended({partition: (first, state[partition][0]) for partition, first in firsts.items()})

    def _full(self, sqlite: sqlite3.Connection) -> LogFullError:
        used = stored_bytes(sqlite, self._stream)
        readers = positions_of_readers(sqlite, self._stream)
        behind = {name: sum(positions.values()) for name, positions in readers.items()}
        slowest = min(behind, key=lambda name: behind[name], default=None)
        fix = "raise the stream's bytes_max, or lower its retention"
        if slowest is not None:
            fix = f"let the reader '{slowest}' catch up (what it has not read is kept), {fix}"
        return LogFullError(
            f"{self._place} is full: {used:,} of {self._limits.bytes_max:,} bytes are in use, "
            "nothing was appended",
            fix=fix,
        )


def _times_of(column: pa.ChunkedArray) -> _Times:
    if column.null_count == len(column):
        return _Times(None, None)
    missing = pc.is_null(column).to_numpy() if column.null_count else None
    given = pc.fill_null(column.cast(pa.int64()), 0).to_numpy()
    return _Times(given, missing)
