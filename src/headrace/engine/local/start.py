"""Where reading begins: at the start of every log; and what a start behind offset 0 leaves out."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta

from headrace.log.protocol import Log
from headrace.sql.plan import PipelinePlan, TableClass, TablePlan
from headrace.store import Store
from headrace.store.instants import micros_of, micros_of_length
from headrace.store.progress import LaneProgress, TableProgress

__all__ = ["begin_lanes", "first_known", "mark_start"]


def begin_lanes(plan: PipelinePlan, logs: Mapping[tuple[str, str], Log], store: Store) -> None:
    """Give every partition that the store does not know yet its place, in one transaction."""
    changed = False
    progress = store.progress.copy()
    for (stream, lane), log in logs.items():
        places = progress.lane(stream, lane)
        new = [held for held in log.partitions() if held.partition not in places]
        known = bool(places)
        for held in new:
            # A partition that appears beside known ones has no history that could be missing before its
            # start.
            places[held.partition] = LaneProgress(start=held.start, next=held.start)
            changed = True
        if lane == "main" and new and not known:
            first = first_known(log)
            if first is not None:
                for table in plan.tables:
                    if stream in table.sources and table.kind is not TableClass.VIEW:
                        mark_start(plan, table, progress.tables[table.name], first)
    if changed:
        with store.transaction():
            store.save(progress)
        store.progress = progress


def first_known(log: Log) -> int | None:
    """Return the record time from which on a log that lost its beginning holds everything.

    None when it lost none.
    """
    ranges = log.partitions()
    cut = [held for held in ranges if held.start > 0]
    latest: int | None = None
    for held in cut:
        first = log.now()
        if held.start < held.end:
            ends = {other.partition: other.end for other in ranges}
            found = log.read(
                {**ends, held.partition: held.start}, rows_max=1, bytes_max=1, wait=timedelta(0)
            ).records
            mine = [
                r
                for r in found.select(["partition", "record_time"]).to_pylist()
                if r["partition"] == held.partition
            ]
            first = mine[0]["record_time"] if mine else first
        latest = max(latest or 0, micros_of(first))
    return latest


def mark_start(plan: PipelinePlan, table: TablePlan, progress: TableProgress, first: int) -> None:
    """Write down what a table cannot know when record times before `first` are missing.

    A lost record came at `first` or before, so its event time is at most `first` + the tolerance for the
    future.
    """
    stream = plan.streams[table.sources[0]].stream
    floor = first + micros_of_length(stream.future_tolerance) + 1
    if table.kind is TableClass.WINDOWED:
        progress.floor = max(progress.floor or floor, floor)
    elif table.kind is TableClass.SESSION:
        progress.floor = max(progress.floor or floor, floor)
        progress.partial_since = progress.floor
    else:
        progress.partial_since = first
