"""Reads the part of a stream's log in which the records of a group lie, and gives them their outcomes again.

The row stage keeps nothing between records: it says of a record what it said when the engine read it, unless
the rules are others today. What the store knows of a record goes before that. Nobody's position is moved.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from headrace.log.arrays import Mask
from headrace.log.between import clamped, read_between
from headrace.log.protocol import Log, PartitionRange

if TYPE_CHECKING:
    from headrace.rows import RowStage

__all__ = ["RECORDS_MAX", "SECONDS_MAX", "Before", "Budget", "Outcomes", "outcomes_between"]

Before = Callable[[str, pa.Table], tuple[Mask, Mask]]
"""Says of rows of a lane (`_partition`, `_offset`) which were copies or expired when they were read, and
which were set aside: see `engine.local.outcomes.outcomes_before`."""

RECORDS_MAX = 200_000
SECONDS_MAX = 5.0
_SLICE = 20_000
_CLOSE = 2_000
_NO_WAIT = timedelta(milliseconds=200)


@dataclass
class Budget:
    """What a scan may still take. `notes` say in words what was therefore not looked at."""

    records: int = RECORDS_MAX
    until: float = field(default_factory=lambda: time.monotonic() + SECONDS_MAX)
    scanned: int = 0
    notes: list[str] = field(default_factory=list)

    @property
    def spent(self) -> bool:
        """Whether nothing more may be read."""
        return self.scanned >= self.records or time.monotonic() >= self.until


@dataclass(frozen=True)
class Outcomes:
    """Records of one slice, each in one of these, but for those that are set aside then and today.

    records     the slice itself (RECORD_SCHEMA)
    accepted    those that were accepted. Columns of this and the next two: see `RowResult.timely`
    duplicates  copies of records that came before; in the redrive lane, also what came back too late
    aside       those that were set aside, while the rules of today would take them
    unplaced    those that were accepted, while the rules of today set them aside: `_partition`, `_offset` and
                `_event_time`, which may be NULL
    """

    records: pa.Table
    accepted: pa.Table
    duplicates: pa.Table
    aside: pa.Table
    unplaced: pa.Table
    lane: str


def outcomes_between(
    log: Log,
    stage: RowStage,
    positions: Mapping[int, int],
    times: tuple[datetime, datetime] | None,
    budget: Budget,
    *,
    lane: str = "main",
    seen: set[int],
    before: Before,
) -> Iterator[Outcomes]:
    """Give outcomes of the records before `positions` whose record times lie in `times`; None: of the last.

    Record times rise within a partition, so places are found by halves; where a load let them fall, records
    around that place may be missed. `seen` are hashes of unique values that were met, and grows.
    """
    ranges = log.partitions()
    ends = clamped(positions, ranges)
    starts = {each.partition: each.start for each in ranges}
    if times is not None:
        for each in ranges:
            held = PartitionRange(each.partition, each.start, ends[each.partition])
            starts[each.partition] = _place(log, ranges, held, times[0], budget, after=False)
            held = PartitionRange(each.partition, starts[each.partition], held.end)
            ends[each.partition] = _place(log, ranges, held, times[1], budget, after=True)
        if any(each.start > 0 and _begins_later(log, ranges, each, times[0]) for each in ranges):
            budget.notes.append("retention has taken records of that time from the log, so some are missing")
    elif any(each.start > 0 for each in ranges):
        budget.notes.append("retention has taken the first records from the log, so some are missing")
    left = budget.records - budget.scanned
    wanted = sum(ends[at] - starts[at] for at in ends)
    if wanted > left:
        budget.notes.append(f"only {left:,} of about {wanted:,} records of that time were looked at")
        share = left // max(len(ends), 1)
        starts = {at: max(starts[at], ends[at] - share) for at in ends}
    for records in read_between(log, starts, ends, rows_max=_SLICE):
        if budget.spent:
            budget.notes.append(f"the search was ended after {budget.scanned:,} records: it took too long")
            return
        budget.scanned += records.num_rows
        yield _decided(stage, records, lane, seen, before)


def _decided(stage: RowStage, records: pa.Table, lane: str, seen: set[int], before: Before) -> Outcomes:
    result = stage.run(records, lane=lane)
    timely = result.timely
    taken, aside = before(lane, timely)
    if "_key_hash" in timely.column_names:
        # The store remembers every copy since it does so at all: one of an older time is known by its values.
        for row, each in enumerate(timely.column("_key_hash").to_pylist()):
            if each is not None and not (taken[row] or aside[row]):
                taken[row] = each in seen
                seen.add(each)
    unplaced = pa.concat_tables(
        [
            result.late.select(["_partition", "_offset", "_event_time"]),
            result.dead.select(["partition", "offset", "event_time"]).rename_columns(
                ["_partition", "_offset", "_event_time"]
            ),
        ],
        promote_options="permissive",
    )
    known = np.logical_or(*before(lane, unplaced))
    return Outcomes(
        records,
        timely.filter(pa.array(~(taken | aside))),
        timely.filter(pa.array(taken)),
        timely.filter(pa.array(aside)),
        unplaced.filter(pa.array(~known)),
        lane,
    )


def _place(
    log: Log,
    ranges: tuple[PartitionRange, ...],
    held: PartitionRange,
    at: datetime,
    budget: Budget,
    *,
    after: bool,
) -> int:
    """Return an offset not far before the first record at `at`; with `after`, not far behind the last one."""
    low, high = held.start, held.end
    while high - low > _CLOSE and not budget.spent:
        middle = (low + high) // 2
        found = _time_at(log, ranges, held.partition, middle)
        if found is not None and (found <= at if after else found < at):
            low = middle
        else:
            high = middle
    return high if after else low


def _begins_later(log: Log, ranges: tuple[PartitionRange, ...], held: PartitionRange, at: datetime) -> bool:
    first = _time_at(log, ranges, held.partition, held.start)
    return first is not None and first > at


def _time_at(log: Log, ranges: tuple[PartitionRange, ...], partition: int, offset: int) -> datetime | None:
    """Return the record time of the first record at `offset` or behind it; None where there is none."""
    asked = {each.partition: each.end for each in ranges} | {partition: offset}
    records = log.read(asked, rows_max=1, bytes_max=1 << 20, wait=_NO_WAIT).records
    records = records.filter(pc.equal(records.column("partition"), partition))
    found: datetime | None = records.column("record_time")[0].as_py() if records.num_rows else None
    return found
