"""Reading a bounded part of a log, as commands do that look at it and move nobody's position."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from datetime import timedelta

import pyarrow as pa

from headrace.errors import TransientError
from headrace.log.protocol import Log, PartitionRange

__all__ = ["clamped", "read_between"]

_ROWS = 5_000
_BYTES = 16 * 1024 * 1024
_WAIT = timedelta(milliseconds=500)
_SILENCE_S_MAX = 15.0
_UNSETTLED_S_MAX = 2.0
"""A transaction is over in less, when its producer is alive and well."""


def clamped(positions: Mapping[int, int], ranges: tuple[PartitionRange, ...]) -> dict[int, int]:
    """Return a position for every partition, within what it holds; one that is absent becomes its end."""
    return {
        each.partition: min(max(positions.get(each.partition, each.end), each.start), each.end)
        for each in ranges
    }


def read_between(
    log: Log,
    starts: Mapping[int, int],
    ends: Mapping[int, int],
    *,
    rows_max: int = _ROWS,
    settled: bool = False,
) -> Iterator[pa.Table]:
    """Give the records (RECORD_SCHEMA) of each partition in `starts` up to its end, in slices.

    Nothing after the ends is given, also when more arrives meanwhile. Raises TransientError when the log
    gives nothing for long although it said that there is something; soon, when that is a transaction which
    stays open. With `settled` what lies behind such a one is left out instead.
    """
    import pyarrow.compute as pc

    positions = {partition: starts[partition] for partition in starts if partition in ends}
    # The others are read from their ends: a position that is absent would be read from its start.
    others = {each.partition: each.end for each in log.partitions() if each.partition not in positions}
    silent_since = time.monotonic()
    while any(positions[partition] < ends[partition] for partition in positions):
        asked = {**others, **positions}
        given = log.read(asked, rows_max=rows_max, bytes_max=_BYTES, wait=_WAIT)
        moved = {partition: given.next.get(partition, at) for partition, at in asked.items()}
        before, positions = positions, {partition: moved[partition] for partition in positions}
        others = {partition: moved[partition] for partition in others}
        if positions == before:
            silence = time.monotonic() - silent_since
            left = {partition for partition, at in positions.items() if at < ends[partition]}
            if left <= given.unsettled and silence > _UNSETTLED_S_MAX:
                if settled:
                    return
                raise _unsettled(log, positions, min(left))
            if silence > _SILENCE_S_MAX:
                raise TransientError(
                    f"stream '{log.stream}': the log gave no record for {_SILENCE_S_MAX:.0f} s",
                    fix="check that the log's servers answer, then try again",
                )
            continue
        silent_since = time.monotonic()
        records = given.records
        for partition in set(records.column("partition").unique().to_pylist()):
            end = ends[partition] if partition in positions else 0
            if moved[partition] > end:
                outside = pc.and_(
                    pc.equal(records.column("partition"), partition),
                    pc.greater_equal(records.column("offset"), end),
                )
                records = records.filter(pc.invert(outside))
        if records.num_rows:
            yield records


def _unsettled(log: Log, positions: Mapping[int, int], partition: int) -> TransientError:
    return TransientError(
        f"stream '{log.stream}', partition {partition}: from offset {positions[partition]} on, records "
        "belong to a transaction that has not ended",
        fix="try again when its producer has ended it, or brokers have (transaction.timeout.ms)",
    )
