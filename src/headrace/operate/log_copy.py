"""Copies a stream from one log to another: order, keys, headers and record times stay.

Each copied record carries where it came from in the header `headrace.copied-from`: the source's identity and
the record's offset there. The last record of a target's partition so says how far the copy came, whatever
happened to the process that copied: what arrived is what counts. The same number of a partition is kept.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from headrace.errors import IntegrityError, RefusedError, TransientError
from headrace.log.backoff import BackOff, Waiting, when_ready
from headrace.log.between import read_between
from headrace.log.headers import COPIED_HEADER, RECORD_TIME_HEADER
from headrace.log.protocol import APPEND_SCHEMA, ORDERED_ROWS, Log, PartitionRange, settles_after
from headrace.operate.redrive import ADDRESS_HEADER

__all__ = ["CopyProgress", "CopyReport", "copy_log", "copy_redrive_lane"]

# Slices of so many records are in order over all partitions, which the target keeps.
_ROWS = ORDERED_ROWS
_LOOK_BACK_FIRST = 16
_HEADERS = APPEND_SCHEMA.field("headers").type
# These belong to one log: the target's own log writes the record's time where it needs to.
_LEFT_BEHIND = (COPIED_HEADER, RECORD_TIME_HEADER)

Change = Callable[[dict[str, Any]], dict[str, Any]]


@dataclass(frozen=True)
class CopyProgress:
    """How far a copy is: records in the target, and those that the source held when it began."""

    records: int
    total: int


@dataclass
class CopyReport:
    """What a copy did; `lost` are offsets that the source's retention took before they were copied."""

    stream: str
    copied: int = 0
    present: int = 0
    lost: int = 0
    complete: bool = False
    partitions: dict[int, int] = field(default_factory=dict)
    """Per partition the source's offset up to which it is copied."""

    def to_json(self) -> dict[str, Any]:
        """Return the report as plain values."""
        return {
            "stream": self.stream,
            "copied": self.copied,
            "copied_before": self.present,
            "lost": self.lost,
            "complete": self.complete,
            "partitions": [{"partition": p, "copied_to": end} for p, end in sorted(self.partitions.items())],
        }


def copy_log(
    source: Log,
    target: Log,
    *,
    stop: threading.Event,
    on_progress: Callable[[CopyProgress], None] = lambda progress: None,
    tell: Callable[[Waiting | None], None] = lambda waiting: None,
    change: Change | None = None,
) -> CopyReport:
    """Copy what `source` holds now and `target` does not; setting `stop` ends it between two appends.

    Ends of either log that do not answer are waited for, each outage a wait of its own for `tell` (see
    `when_ready`); what arrived is then looked up again, so that an append whose answer was lost is not
    repeated. Raises RefusedError when the target has too few partitions or holds records that are no copies
    of this source, IntegrityError when it has what the source never had.
    """
    ranges = when_ready(source.partitions, stop, tell)
    if ranges is None:
        return CopyReport(source.stream)
    if source.identity == target.identity:
        raise RefusedError(
            f"stream '{source.stream}' has the same log in both profiles",
            fix="bind it to another log in one of them",
        )
    report = CopyReport(source.stream)
    back_off = BackOff(tell)
    started = False

    def appended(progress: CopyProgress) -> None:
        # Were it over only when all is copied, an outage hours later would be a further try of this one.
        back_off.over()
        on_progress(progress)

    def attempt() -> bool:
        nonlocal started
        positions = _positions(source, target, ranges)
        if not started:
            report.present = sum(positions[each.partition] - each.start for each in ranges)
            started = True
        report.lost += _skip_lost(source, positions)
        report.partitions = positions
        return _copy(source, target, positions, ranges, stop, appended, report, change)

    with ExitStack() as over:
        when_ready(lambda: over.enter_context(target.load()), stop, back_off)
        if not stop.is_set():
            report.complete = bool(when_ready(attempt, stop, back_off))
    return report


def _copy(
    source: Log,
    target: Log,
    positions: dict[int, int],
    ranges: tuple[PartitionRange, ...],
    stop: threading.Event,
    on_progress: Callable[[CopyProgress], None],
    report: CopyReport,
    change: Change | None,
) -> bool:
    ends = {each.partition: each.end for each in ranges}
    total = sum(each.end - each.start for each in ranges)
    for slice_ in read_between(source, dict(positions), ends, rows_max=_ROWS):
        if stop.is_set():
            return False
        # A slice comes in the order of record times, which may differ from that of a partition's offsets.
        records = slice_.sort_by([("partition", "ascending"), ("offset", "ascending")])
        try:
            target.append(_marked(records, source.identity, change))
        except TransientError:
            # What failed may be in the target and not be told yet: looked for too soon, it would be appended
            # again.
            stop.wait(settles_after(target).total_seconds())
            raise
        report.copied += records.num_rows
        groups = records.group_by("partition").aggregate([("offset", "max")]).to_pylist()
        positions.update({each["partition"]: each["offset_max"] + 1 for each in groups})
        left = sum(max(0, ends[partition] - at) for partition, at in positions.items())
        on_progress(CopyProgress(total - left, total))
    positions.update(ends)
    return True


def _positions(source: Log, target: Log, ranges: tuple[PartitionRange, ...]) -> dict[int, int]:
    """Return the source's offset to go on with in each partition, as the target's last records say."""
    held = {each.partition: each for each in target.partitions()}
    missing = [each.partition for each in ranges if each.partition not in held]
    if missing:
        raise RefusedError(
            f"stream '{source.stream}' has {len(ranges)} partitions, the target has {len(held)}: "
            "a record keeps its partition's number",
            fix=f"set partitions = {len(ranges)} (or more) for it in the target's profile",
        )
    positions = {}
    for each in ranges:
        mark = _last_mark(source, target, held[each.partition])
        if mark is not None and mark > each.end:
            raise IntegrityError(
                f"stream '{source.stream}', partition {each.partition}: the target holds a copy of offset "
                f"{mark - 1}, and the source ends at {each.end}",
                fix="the source was set back (restored?): copy it to an empty target",
            )
        positions[each.partition] = each.start if mark is None else mark
    return positions


def _last_mark(source: Log, target: Log, held: PartitionRange) -> int | None:
    """Return the source's offset behind the last record of a target's partition; None: it is empty."""
    place = f"stream '{source.stream}', partition {held.partition} of the target"
    if held.end == 0:
        return None
    back = _LOOK_BACK_FIRST
    records = None
    while records is None and held.end > held.start:
        start = max(held.start, held.end - back)
        found = list(read_between(target, {held.partition: start}, {held.partition: held.end}))
        records = pa.concat_tables(found).sort_by("offset") if found else None
        if start == held.start:
            break
        back *= 16  # offsets without records: marks of transactions
    if records is None:
        raise RefusedError(
            f"{place}: what it held was deleted by retention, so nothing says how far a copy came",
            fix="copy to an empty log, with a longer retention",
        )
    headers = records.column("headers")[-1].as_py() or ()
    for header in headers:
        if header["key"] == COPIED_HEADER:
            identity, _, offset = header["value"].decode().rpartition(":")
            if identity == source.identity:
                return int(offset) + 1
            raise RefusedError(
                f"{place} is a copy of another log (its identity is {identity})",
                fix="copy to an empty log",
            )
    raise RefusedError(
        f"{place} holds records that no copy wrote; after them, the order would be another one",
        fix="copy to an empty log, before its producers start",
    )


def _skip_lost(source: Log, positions: dict[int, int]) -> int:
    lost = 0
    for each in source.partitions():
        if each.partition in positions and positions[each.partition] < each.start:
            lost += each.start - positions[each.partition]
            positions[each.partition] = each.start
    return lost


def _marked(records: pa.Table, identity: str, change: Change | None) -> pa.Table:
    """Return records to append: with their partition and time, and where they came from."""
    offsets = pc.cast(records.column("offset"), pa.string())
    marks = pc.cast(pc.binary_join_element_wise(identity, offsets, ":"), pa.binary()).combine_chunks()
    headers = records.column("headers")
    if headers.null_count == len(headers) and change is None:
        names = pa.array([COPIED_HEADER] * len(marks), pa.string())
        items = pa.StructArray.from_arrays([names, marks], fields=list(_HEADERS.value_type))
        marked = pa.ListArray.from_arrays(pa.array(range(len(marks) + 1), pa.int32()), items)
    else:
        lists = []
        for given, mark in zip(headers.to_pylist(), marks.to_pylist(), strict=True):
            kept = [each for each in given or () if each["key"] not in _LEFT_BEHIND]
            if change is not None:
                kept = [change(each) for each in kept]
            lists.append([*kept, {"key": COPIED_HEADER, "value": mark}])
        marked = pa.array(lists, _HEADERS)
    columns = {name: records.column(name) for name in ("partition", "record_time", "key", "value")}
    return pa.table({**columns, "headers": marked}).select(APPEND_SCHEMA.names).cast(APPEND_SCHEMA)


def copy_redrive_lane(
    source: Log,
    target: Log,
    *,
    stop: threading.Event,
    tell: Callable[[Waiting | None], None] = lambda waiting: None,
) -> CopyReport:
    """Copy the redrive lane behind the stream itself; the addresses in it become those of the target."""

    def addresses() -> tuple[Log, dict[int, int]]:
        shifts = {each.partition: _shift(source, target, each) for each in target.partitions()}
        return target.lane("redrive"), shifts

    ranges = when_ready(lambda: source.lane("redrive").partitions(), stop, tell)
    some = any(each.end > each.start for each in ranges or ())
    found = when_ready(addresses, stop, tell) if some else None
    if found is None:
        return CopyReport(source.stream, complete=ranges is not None and not some)
    lane, shifts = found

    def moved(header: dict[str, Any]) -> dict[str, Any]:
        if header["key"] != ADDRESS_HEADER:
            return header
        partition, _, offset = header["value"].decode().partition(":")
        at = int(offset) + shifts.get(int(partition), 0)
        return {"key": ADDRESS_HEADER, "value": f"{partition}:{at}".encode()}

    return copy_log(source.lane("redrive"), lane, stop=stop, tell=tell, change=moved)


def _shift(source: Log, target: Log, held: PartitionRange) -> int:
    """Return by how much offsets of a partition differ between the logs: retention took a source's first."""
    if held.end == held.start:
        return 0
    shifts: set[int] = set()
    for start, end in ((held.start, held.start + 1), (held.end - 1, held.end)):
        for records in read_between(target, {held.partition: start}, {held.partition: end}):
            for record in records.to_pylist():
                values = [h["value"] for h in record["headers"] or () if h["key"] == COPIED_HEADER]
                shifts |= {record["offset"] - int(value.decode().rpartition(":")[2]) for value in values}
    if len(shifts) != 1:
        raise RefusedError(
            f"stream '{source.stream}', partition {held.partition}: offsets of the copy do not follow the "
            "source's, so the addresses of redriven records cannot be carried over",
            fix="redrive them again on the new log, and copy with --without-redrive",
        )
    return shifts.pop()
