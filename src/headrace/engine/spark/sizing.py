"""How large records are, found out by looking at some: Kafka says only how many there are.

The first micro-batch of a run has none before it by which it could be judged (see `pace`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing

import pyarrow.compute as pc

from headrace.engine.spark.cutting import Place
from headrace.engine.spark.fetching import RangeReader
from headrace.engine.spark.task import Lane, LaneTask

__all__ = ["rows_within"]

_LOOKS = 8
"""Each waits for a broker; partitions beyond so many are not looked at."""

_RECORDS = 32


def rows_within(
    lanes: Mapping[Lane, LaneTask],
    spans: Mapping[Place, tuple[int, int]],
    rows_max: int,
    bytes_max: int,
) -> int:
    """Return how many records have about `bytes_max` bytes: one at least, `rows_max` at most.

    `spans` are the offsets that a batch may read, none of them empty. Some of their records are read, at
    places spread evenly, and all are taken for as large as the largest of them. Raises TransientError when
    the brokers fall silent.
    """
    largest = 0
    for lane, mine in _by_lane(_looks(spans)).items():
        with closing(RangeReader(lanes[lane], lose=True)) as reader:
            for partition, start, end in mine:
                for found in reader.read(partition, start, end):
                    sizes = pc.binary_length(found.records.column("value"))
                    largest = max(largest, pc.max(sizes).as_py() or 0)
    return rows_max if not largest else max(1, min(rows_max, bytes_max // largest))


def _looks(spans: Mapping[Place, tuple[int, int]]) -> Iterator[tuple[Place, int, int]]:
    """Give where to look: place, first and next offset."""
    places = sorted(spans)
    chosen = [places[number * len(places) // _LOOKS] for number in range(_LOOKS)]
    for place in dict.fromkeys(chosen):
        start, end = spans[place]
        times = chosen.count(place)
        if end - start <= times * _RECORDS:  # one wait instead of several
            yield place, start, end
            continue
        for number in range(times):
            at = start + (end - start) * number // times
            yield place, at, at + _RECORDS


def _by_lane(
    looks: Iterator[tuple[Place, int, int]],
) -> Mapping[Lane, Sequence[tuple[int, int, int]]]:
    found: dict[Lane, list[tuple[int, int, int]]] = {}
    for (stream, lane, partition), start, end in looks:
        found.setdefault((stream, lane), []).append((partition, start, end))
    return found
