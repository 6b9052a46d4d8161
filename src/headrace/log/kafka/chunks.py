"""Records that were fetched and not given yet, by partition, and the order in which they are given."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from confluent_kafka import Message

from headrace.log.headers import RECORD_TIME_HEADER
from headrace.log.protocol import ORDERED_ROWS, RECORD_SCHEMA

__all__ = ["Fetched", "take"]

Integers = npt.NDArray[np.int64]
_HEADERS = RECORD_SCHEMA.field("headers").type
_INSTANT = re.compile(rb"-?[0-9]{1,18}")
_INSTANT_MIN, _INSTANT_MAX = -62_135_596_800_000_000, 253_402_300_799_999_999


@dataclass
class _Chunk:
    """Records of one partition in the order of their offsets; times are microseconds since 1970.

    `keys` and `headers` are None when no record has any.
    """

    offsets: Integers
    times: Integers
    reached: Integers
    sizes: Integers
    values: pa.Array
    keys: pa.Array | None
    headers: pa.Array | None

    def part(self, start: int, end: int | None = None) -> _Chunk:
        rows = slice(start, end)
        return _Chunk(
            self.offsets[rows],
            self.times[rows],
            self.reached[rows],
            self.sizes[rows],
            self.values[rows],
            None if self.keys is None else self.keys[rows],
            None if self.headers is None else self.headers[rows],
        )


@dataclass
class Fetched:
    """One partition. `position` is the next offset to give, `next` the next to fetch.

    at_end    nothing lies behind `next`, as far as the last fetch saw
    reached   the highest record time so far: a record counts as no earlier than those in front of it
    """

    partition: int
    position: int
    next: int
    at_end: bool = False
    paused: bool = False
    reached: int | None = None
    rows: int = 0
    bytes: int = 0
    chunks: list[_Chunk] = field(default_factory=list)

    def add(self, messages: Sequence[Message], *, by_header: bool) -> None:
        """Take messages of this partition, in the order of their offsets."""
        count = len(messages)
        offsets = _offsets(messages)
        if offsets[0] < self.next:  # fetched again after a pause
            messages = messages[int(np.searchsorted(offsets, self.next)) :]
            if messages:
                self.add(messages, by_header=by_header)
            return
        # A sender's time may be anything, in microseconds by mistake for example: a time beyond the year 9999
        # could not be shown or given on.
        stamps = np.fromiter(map(itemgetter(1), map(Message.timestamp, messages)), np.int64, count)
        times = np.clip(stamps, _INSTANT_MIN // 1000, _INSTANT_MAX // 1000) * 1000
        headers = _headers_of(messages)
        if by_header and headers.count(None) < count:
            _read_times(headers, times)
        reached = np.maximum.accumulate(times)
        if self.reached is not None:
            reached = np.maximum(reached, self.reached)
        values = list(map(Message.value, messages))
        # Asking a list for lengths is half the price of asking messages; tombstones have none.
        sizes = np.fromiter(map(len, messages if None in values else values), np.int64, count)
        keys = list(map(Message.key, messages))
        self.chunks.append(
            _Chunk(
                offsets,
                times,
                reached,
                sizes,
                _joined(values, sizes),
                None if keys.count(None) == count else pa.array(keys, pa.binary()),
                _headers(headers),
            )
        )
        self.next, self.reached, self.at_end = int(offsets[-1]) + 1, int(reached[-1]), False
        self.rows += count
        self.bytes += int(sizes.sum())

    def drop(self, rows: int) -> None:
        """Let go of the first rows: they were given."""
        self.rows -= rows
        left: list[_Chunk] = []
        for chunk in self.chunks:
            gone = min(rows, len(chunk.offsets))
            rows -= gone
            self.bytes -= int(chunk.sizes[:gone].sum())
            if gone < len(chunk.offsets):
                left.append(chunk.part(gone) if gone else chunk)
        self.chunks = left
        self.position = int(left[0].offsets[0]) if left else self.next


def _offsets(messages: Sequence[Message]) -> Integers:
    count, first = len(messages), messages[0].offset()
    if messages[-1].offset() - first == count - 1:  # they only grow, so none is missing
        return np.arange(first, first + count)
    return np.fromiter(map(Message.offset, messages), np.int64, count)


def _headers_of(messages: Sequence[Message]) -> list[Any]:
    """Return the headers of each; None where a name is not UTF-8: the client cannot give such ones.

    No message is asked twice: after such an error the client would give a list with holes, and crash.
    """
    asked, headers = map(Message.headers, messages), list[Any]()
    while len(headers) < len(messages):
        try:
            headers.extend(asked)
        except (SystemError, UnicodeDecodeError):
            headers.append(None)
    return headers


def _read_times(headers: list[Any], times: Integers) -> None:
    """Put record times that stand in headers in the place of the topic's own, and take these headers out.

    A header that is no instant between the years 1 and 9999 stays one like any other: anybody may write it.
    """
    for row, each in enumerate(headers):
        for key, value in each or ():
            if key == RECORD_TIME_HEADER and value is not None and _INSTANT.fullmatch(value):
                micros = int(value)
                if _INSTANT_MIN <= micros <= _INSTANT_MAX:
                    times[row] = micros
                    headers[row] = [header for header in each if header[0] != RECORD_TIME_HEADER] or None


def take(partitions: Sequence[Fetched], *, rows_max: int, bytes_max: int) -> tuple[pa.Table, dict[int, int]]:
    """Return records, ordered as `Slice` says, and how many of each partition they are.

    Of every partition a prefix; nothing behind the highest record time of a partition of which more is to
    come, so that partitions advance together.
    """
    bound = min(
        (one.reached if one.reached is not None else -(1 << 62) for one in partitions if not one.at_end),
        default=None,
    )
    held = [(one, chunk) for one in partitions for chunk in one.chunks]
    if not held:
        return RECORD_SCHEMA.empty_table(), {}
    counts = [len(chunk.offsets) for _, chunk in held]
    reached = np.concatenate([chunk.reached for _, chunk in held])
    numbers = np.repeat(np.array([one.partition for one, _ in held], np.int32), counts)
    order = np.lexsort((numbers, reached))  # stable: offsets of a partition stay in order
    reached = reached[order]
    count = len(order) if bound is None else int(np.searchsorted(reached, bound, side="right"))
    if not count:
        return RECORD_SCHEMA.empty_table(), {}
    sizes = np.concatenate([chunk.sizes for _, chunk in held])[order]
    count = min(count, rows_max, int(np.searchsorted(np.cumsum(sizes), bytes_max, side="right")))
    picked = np.sort(order[: max(count, 1)])  # partition by partition, of every chunk a prefix
    taken = np.diff(np.searchsorted(picked, np.cumsum([0, *counts]))).tolist()
    table = _table(
        [chunk.part(0, rows) for (_, chunk), rows in zip(held, taken, strict=True) if rows], numbers[picked]
    )
    found, given = np.unique(numbers[picked], return_counts=True)
    if len(picked) <= ORDERED_ROWS:
        table = _ordered(table)
    return table, dict(zip(found.tolist(), given.tolist(), strict=True))


def _table(chunks: Sequence[_Chunk], partitions: npt.NDArray[np.int32]) -> pa.Table:
    """Return the rows of `chunks`, one chunk after the other."""

    def of(kind: pa.DataType, arrays: Sequence[pa.Array | None]) -> pa.Array:
        if all(array is None for array in arrays):
            return pa.nulls(len(partitions), kind)
        return pa.concat_arrays(
            pa.nulls(len(chunk.offsets), kind) if array is None else array
            for chunk, array in zip(chunks, arrays, strict=True)
        )

    columns = [
        pa.array(partitions),
        pa.array(np.concatenate([chunk.offsets for chunk in chunks])),
        pa.array(np.concatenate([chunk.times for chunk in chunks])).cast(pa.timestamp("us", "UTC")),
        of(pa.binary(), [chunk.keys for chunk in chunks]),
        of(pa.binary(), [chunk.values for chunk in chunks]),
        of(_HEADERS, [chunk.headers for chunk in chunks]),
    ]
    return pa.Table.from_arrays(columns, schema=RECORD_SCHEMA)


def _ordered(table: pa.Table) -> pa.Table:
    partitions = table.column("partition").to_numpy()
    times = table.column("record_time").cast(pa.int64()).to_numpy()
    order = np.lexsort((partitions, times))  # stable
    return table if bool((np.diff(order) == 1).all()) else table.take(pa.array(order))


def _headers(given: list[Any]) -> pa.Array | None:
    if given.count(None) == len(given):
        return None
    rows = [None if each is None else [{"key": key, "value": value} for key, value in each] for each in given]
    return pa.array(rows, _HEADERS)


def _joined(values: list[bytes | None], sizes: Integers) -> pa.Array:
    """Return an array of `values` in one buffer: joined, not appended one by one."""
    if None in values:
        return pa.array(values, pa.binary())
    offsets = np.zeros(len(values) + 1, np.int32)
    offsets[1:] = np.cumsum(sizes)
    data = pa.py_buffer(b"".join(values))  # type: ignore[arg-type]
    return pa.Array.from_buffers(pa.binary(), len(values), [None, pa.py_buffer(offsets), data], null_count=0)
