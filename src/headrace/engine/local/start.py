"""Where reading begins: at the start of every log; and what a start behind offset 0 leaves out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import datetime, timedelta

from headrace.errors import RefusedError, TransientError
from headrace.log.protocol import Log, PartitionRange
from headrace.sql.plan import PipelinePlan, TableClass, TablePlan
from headrace.store import Store
from headrace.store.instants import micros_of, micros_of_length
from headrace.store.progress import LaneProgress, Progress, TableProgress

__all__ = [
    "READER",
    "begin_lanes",
    "begin_rebuilds",
    "first_known",
    "forget_taken",
    "mark_start",
    "needed_from",
]

READER = "engine"
"""The name under which committed positions are published to the logs."""

_READ_MOST = 10_000


def begin_lanes(plan: PipelinePlan, logs: Mapping[tuple[str, str], Log], store: Store) -> None:
    """Give every partition that the store does not know yet its place, in one transaction."""
    changed = False
    progress = store.progress.copy()
    for (stream, lane), log in logs.items():
        if lane != "main":  # those of the streams themselves were compared when the store was opened
            used = any(place.next for place in progress.lane(stream, lane).values())
            store.require_lane(stream, lane, log.identity, used=used)
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
    forget_taken(logs, store)
    if changed:
        with store.transaction():
            store.save(progress)
        store.progress = progress


def forget_taken(logs: Mapping[tuple[str, str], Log], store: Store) -> None:
    """Forget the outcomes of records that no log holds any more, for no rebuild can read them.

    So they are kept as long as the logs keep records.
    """
    # Asked before the transaction: a log that takes its time must not keep one open.
    starts = []
    for (stream, lane), log in logs.items():
        with suppress(TransientError):  # another time will do
            starts += [[stream, lane, held.partition, held.start] for held in log.partitions() if held.start]
    with store.transaction():
        for start in starts:
            store.connection.execute(
                "DELETE FROM _headrace.taken "
                'WHERE stream = ? AND lane = ? AND partition = ? AND "offset" < ?',
                start,
            )


def begin_rebuilds(plan: PipelinePlan, logs: Mapping[tuple[str, str], Log], store: Store) -> None:
    """Let the tables that are asked for again, and those that are new, begin at the logs' start.

    In one transaction. Raises RefusedError, with nothing changed, when a complete answer would be replaced by
    one that lacks what the log no longer holds.
    """
    asked, progress = store.asked, store.progress.copy()
    tables = {table.name: table for table in plan.tables if table.kind is not TableClass.VIEW}
    new = [n for n in tables if (stands := progress.tables[n].rebuild) is not None and not stands.next]
    names = [name for name in tables if name in asked or name in new]
    if not names:
        return
    firsts: dict[str, int | None] = {}
    for stream in {tables[name].sources[0] for name in names}:
        for (mine, lane), log in logs.items():
            if mine == stream:  # from here on retention leaves what is there
                log.publish(READER, dict.fromkeys(progress.positions(stream, lane), 0))
        firsts[stream] = first_known(logs[stream, "main"])
    for name in asked:
        _refuse_less(plan, tables[name], progress.tables[name], firsts[tables[name].sources[0]])
    with store.transaction():
        for name in names:
            stream = tables[name].sources[0]
            if name in asked:
                progress.tables[name] = _begun_again(plan, tables[name], store, firsts[stream])
            elif firsts[stream] is not None:
                mark_start(plan, tables[name], progress.tables[name], firsts[stream] or 0)
            place = progress.tables[name].rebuild
            if place is not None:
                starts = {lane: logs[stream, lane].partitions() for lane in place.goal}
                following = {lane: {r.partition: r.start for r in ranges} for lane, ranges in starts.items()}
                progress.tables[name].rebuild = replace(place, next=following)
        store.save(progress)
    store.progress = progress


def _refuse_less(plan: PipelinePlan, table: TablePlan, known: TableProgress, first: int | None) -> None:
    """Refuse to compute totals and sessions again that the log no longer holds all records of."""
    if first is None or known.rebuild is not None or table.kind is TableClass.WINDOWED:
        return
    if table.kind is TableClass.ROWS and not table.key:
        return
    again = TableProgress(table.fingerprint)
    mark_start(plan, table, again, first)
    if known.partial_since is not None and known.partial_since >= (again.partial_since or 0):
        return
    raise RefusedError(
        f"table '{table.name}' cannot be computed again: the log of stream '{table.sources[0]}' no longer "
        "holds the records that it began with, and its answer would lose them",
        fix=f"run without --rebuild {table.name}; for another query, give the table another name: it begins "
        "where the log does, and says since when",
    )


def _begun_again(plan: PipelinePlan, table: TablePlan, store: Store, first: int | None) -> TableProgress:
    """Empty a table; what a windowed table of the same query knows from before the log's start, it keeps."""
    known = store.progress.tables[table.name]
    again = TableProgress(table.fingerprint)
    if first is not None:
        mark_start(plan, table, again, first)
    kept = None
    if (
        again.floor is not None
        and table.kind is TableClass.WINDOWED
        and known.fingerprint == table.fingerprint
    ):
        # A rebuild that did not come to its end left whole windows only below its own floor.
        unfinished = known.rebuild is not None
        kept = min(again.floor, known.floor or 0) if unfinished else again.floor
    made = store.begin_again(table.name, kept_before=kept)
    made.floor, made.partial_since = again.floor, again.partial_since
    if kept is not None:  # windows that stay lack what they lacked
        made.lost_before = known.lost_before
    if made.rebuild is not None and kept is not None and known.rebuild is None:
        made.rebuild = replace(made.rebuild, kept=True, floor=known.floor)
    return made


def needed_from(progress: Progress, stream: str, lane: str, tables: list[str]) -> dict[int, int]:
    """Return the least offset of every partition that reading or a rebuild of `tables` still needs."""
    needed = progress.positions(stream, lane)
    for name in tables:
        place = progress.tables[name].rebuild
        if place is not None:
            following = place.next.get(lane, {})
            needed = {n: min(position, following.get(n, 0)) for n, position in needed.items()}
    return needed


def first_known(log: Log) -> int | None:
    """Return the record time from which on a log that lost its beginning holds everything.

    None when it lost none.
    """
    ranges = log.partitions()
    cut = [held for held in ranges if held.start > 0]
    if not cut:
        return None
    return max(micros_of(_first_of(log, ranges, held)) for held in cut)


def _first_of(log: Log, ranges: Sequence[PartitionRange], held: PartitionRange) -> datetime:
    """Return the record time of a partition's first record; the time now when it has none."""
    places = {**{other.partition: other.end for other in ranges}, held.partition: held.start}
    rows_max = 1
    while places[held.partition] < held.end:
        # Records that came to other partitions meanwhile may take the room: look again, and for more.
        found = log.read(places, rows_max=rows_max, bytes_max=1 << 20, wait=timedelta(0))
        for record in found.records.select(["partition", "record_time"]).to_pylist():
            if record["partition"] == held.partition:
                first: datetime = record["record_time"]
                return first
        places.update(found.next)
        rows_max = min(2 * rows_max, _READ_MOST)
    return log.now()


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
