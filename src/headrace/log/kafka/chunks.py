"""Records that were fetched and not given yet, by partition, and the order in which they are given."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from confluent_kafka import Message

from headrace.log.kafka.appending import RECORD_TIME_HEADER
from headrace.log.protocol import RECORD_SCHEMA

__all__ = ["Fetched", "take"]

Integers = npt.NDArray[np.int64]
_HEADERS = RECORD_SCHEMA.field("headers").type


@dataclass
class _Chunk:
    """Records of one partition in the order of their offsets; times are microseconds since 1970."""

    offsets: Integers
    times: Integers
    reached: Integers
    sizes: Integers
    values: list[bytes | None]
    keys: list[bytes | None]
    headers: list[Any]

    def part(self, rows: slice) -> _Chunk:
        return _Chunk(
            self.offsets[rows],
            self.times[rows],
            self.reached[rows],
            self.sizes[rows],
            self.values[rows],
            self.keys[rows],
            self.headers[rows],
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
        offsets = np.fromiter(map(Message.offset, messages), np.int64, count)
        if offsets[0] < self.next:  # fetched again after a pause
            messages = messages[int(np.searchsorted(offsets, self.next)) :]
            if messages:
                self.add(messages, by_header=by_header)
            return
        times = np.fromiter(map(itemgetter(1), map(Message.timestamp, messages)), np.int64, count) * 1000
        values = list(map(Message.value, messages))
        keys = list(map(Message.key, messages))
        headers = list(map(Message.headers, messages))
        if by_header and headers.count(None) < count:
            _read_times(headers, times)
        reached = np.maximum.accumulate(times)
        if self.reached is not None:
            reached = np.maximum(reached, self.reached)
        sizes = np.fromiter((len(value) if value is not None else 0 for value in values), np.int64, count)
        self.chunks.append(_Chunk(offsets, times, reached, sizes, values, keys, headers))
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
                left.append(chunk.part(slice(gone, None)) if gone else chunk)
        self.chunks = left
        self.position = int(left[0].offsets[0]) if left else self.next


def _read_times(headers: list[Any], times: Integers) -> None:
    """Put record times that stand in headers in the place of the topic's own, and take these headers out."""
    for row, each in enumerate(headers):
        for key, value in each or ():
            if key == RECORD_TIME_HEADER and value is not None and value.lstrip(b"-").isdigit():
                times[row] = int(value)
                headers[row] = [header for header in each if header[0] != RECORD_TIME_HEADER] or None


def take(partitions: Sequence[Fetched], *, rows_max: int, bytes_max: int) -> tuple[pa.Table, dict[int, int]]:
    """Return records in (record time, partition, offset) order, and how many of each partition they are.

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
    times = np.concatenate([chunk.times for _, chunk in held])
    numbers = np.repeat(np.array([one.partition for one, _ in held], np.int64), counts)
    order = np.lexsort((numbers, reached))  # stable: offsets of a partition stay in order
    reached = reached[order]
    count = len(order) if bound is None else int(np.searchsorted(reached, bound, side="right"))
    if not count:
        return RECORD_SCHEMA.empty_table(), {}
    sizes = np.concatenate([chunk.sizes for _, chunk in held])[order]
    count = min(count, rows_max, int(np.searchsorted(np.cumsum(sizes), bytes_max, side="right")))
    picked = order[: max(count, 1)]
    found, given = np.unique(numbers[picked], return_counts=True)
    picked = picked[np.lexsort((numbers[picked], times[picked]))]
    table = _table([chunk for _, chunk in held], numbers, times, picked)
    return table, dict(zip(found.tolist(), given.tolist(), strict=True))


def _table(chunks: Sequence[_Chunk], numbers: Integers, times: Integers, picked: Integers) -> pa.Table:
    """Return the rows `picked` of the chunks' rows, one after the other."""
    offsets = np.concatenate([chunk.offsets for chunk in chunks])
    in_order = len(picked) < 2 or bool((np.diff(picked) == 1).all())
    first, end = (int(picked[0]), int(picked[-1]) + 1) if in_order else (0, 0)
    rows = picked.tolist()

    def of(lists: Sequence[list[Any]]) -> list[Any]:
        every = lists[0] if len(lists) == 1 else [each for one in lists for each in one]
        return every[first:end] if in_order else [every[row] for row in rows]

    headers = of([chunk.headers for chunk in chunks])
    columns = [
        pa.array(numbers[picked].astype(np.int32)),
        pa.array(offsets[picked]),
        pa.array(times[picked]).cast(pa.timestamp("us", "UTC")),
        _binary(of([chunk.keys for chunk in chunks])),
        _binary(of([chunk.values for chunk in chunks])),
        pa.array([_header_rows(each) for each in headers], _HEADERS)
        if headers.count(None) < len(headers)
        else pa.nulls(len(rows), _HEADERS),
    ]
    return pa.Table.from_arrays(columns, schema=RECORD_SCHEMA)


def _header_rows(headers: Any) -> list[dict[str, Any]] | None:
    return None if headers is None else [{"key": key, "value": value} for key, value in headers]


def _binary(values: list[bytes | None]) -> pa.Array:
    """Return an array of `values` in one buffer: joined, not appended one by one."""
    nulls = values.count(None)
    if nulls == len(values):
        return pa.nulls(len(values), pa.binary())
    if nulls:
        return pa.array(values, pa.binary())
    offsets = np.zeros(len(values) + 1, np.int32)
    offsets[1:] = np.cumsum(np.fromiter(map(len, values), np.int64, len(values)))  # type: ignore[arg-type]
    data = b"".join(values)  # type: ignore[arg-type]
    return pa.Array.from_buffers(
        pa.binary(), len(values), [None, pa.py_buffer(offsets), pa.py_buffer(data)], null_count=0
    )
