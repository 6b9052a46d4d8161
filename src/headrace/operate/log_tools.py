"""Looks at a log without moving anybody's position: what it holds, who reads it, single records."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from headrace.declare.durations import format_duration
from headrace.declare.words import printable
from headrace.errors import RefusedError
from headrace.log.backoff import Waiting, when_ready
from headrace.log.between import clamped, read_between
from headrace.log.protocol import KnowsBytes, Log, PartitionRange
from headrace.operate.exact_json import dump_exact, load_exact
from headrace.operate.secrets import Secret

if TYPE_CHECKING:
    from headrace.rows.framing import Framing

__all__ = ["From", "Peeked", "describe_log", "peek", "settings_of"]

_SAMPLE = 200
_LAST_MAX = 100_000
_LAYOUT = "\n\t"
_FOLLOW_WAIT = timedelta(milliseconds=500)


def describe_log(log: Log) -> dict[str, Any]:
    """Return what a log holds and who reads it, as plain values.

    `bytes` are as stored; where the log cannot say that, they are estimated from the last records of each
    partition and `bytes_estimated` is true.
    """
    ranges = log.partitions()
    known = isinstance(log, KnowsBytes)
    sizes = log.stored_bytes() if isinstance(log, KnowsBytes) else _estimated(log, ranges)
    total = sum(sizes.values())
    partitions = [
        {
            "partition": each.partition,
            "start": each.start,
            "end": each.end,
            "records": each.end - each.start,
            "bytes": sizes.get(each.partition, 0),
            "share": round(sizes.get(each.partition, 0) / total, 4) if total else 0.0,
        }
        for each in ranges
    ]
    return {
        "stream": log.stream,
        "identity": log.identity,
        "records": sum(each["records"] for each in partitions),
        "bytes": total,
        "bytes_estimated": not known,
        "partitions": partitions,
        "readers": [_reader(name, read, ranges) for name, read in sorted(log.readers().items())],
    }


def _reader(name: str, read: Mapping[int, int], ranges: tuple[PartitionRange, ...]) -> dict[str, Any]:
    places = []
    for each in ranges:
        position = read.get(each.partition)
        lag = each.unread(max(position or 0, each.start))
        places.append({"partition": each.partition, "position": position, "lag_records": lag})
    return {"reader": name, "lag_records": sum(each["lag_records"] for each in places), "partitions": places}


def _estimated(log: Log, ranges: tuple[PartitionRange, ...]) -> dict[int, int]:
    sampled = dict.fromkeys((each.partition for each in ranges), (0, 0))
    starts = clamped({each.partition: each.end - _SAMPLE for each in ranges}, ranges)
    ends = {each.partition: each.end for each in ranges}
    for records in read_between(log, starts, ends, settled=True):
        for partition in sampled:
            mine = records.filter(pc.equal(records.column("partition"), partition))
            size = sum(pc.sum(pc.binary_length(mine.column(name))).as_py() or 0 for name in ("key", "value"))
            found, bytes_ = sampled[partition]
            sampled[partition] = (found + mine.num_rows, bytes_ + size)
    return {
        each.partition: sampled[each.partition][1]
        * (each.end - each.start)
        // max(sampled[each.partition][0], 1)
        for each in ranges
    }


def settings_of(binding: Any) -> dict[str, Any]:
    """Return the options of a stream's binding as the profile takes them; a secret is never shown."""
    found = {}
    for line in dataclasses.fields(binding):
        value = getattr(binding, line.name)
        if isinstance(value, Secret):
            value = "****"
        elif isinstance(value, timedelta):
            value = format_duration(value)
        elif not isinstance(value, str | int | float | bool | list | tuple | dict | None):
            continue
        found[line.name] = value
    return found


@dataclass(frozen=True)
class From:
    """Where to begin: the start, the last so many records of all partitions, or a partition's offset."""

    beginning: bool = False
    last: int = 10
    offset: tuple[int, int] | None = None

    @staticmethod
    def parse_offset(text: str) -> tuple[int, int]:
        """Read `PARTITION:OFFSET`. Raises RefusedError."""
        partition, colon, offset = text.partition(":")
        if not (colon and partition.isdecimal() and offset.isdecimal()):
            raise RefusedError(
                f"'{text}' is not a place in a log", fix="write PARTITION:OFFSET, for example 0:1234"
            )
        return int(partition), int(offset)


@dataclass(frozen=True)
class Peeked:
    """One record as people read it.

    form     json, text (no JSON, but text), bytes (escaped), or tombstone
    parsed   what the JSON says, with its digits; the text otherwise
    problem  why a record in a format of its own cannot be read, or nothing
    """

    address: str
    facts: Mapping[str, Any]
    form: str
    parsed: Any
    problem: str = ""

    def pretty(self) -> str:
        """Return the value for people: JSON is indented."""
        if self.form == "tombstone":
            return "(a tombstone: no value)"
        return (
            printable(dump_exact(self.parsed, indent=2), _LAYOUT) if self.form == "json" else str(self.parsed)
        )

    def line(self) -> str:
        """Return the record as one line of JSON."""
        document = {**self.facts, "form": self.form, "value": self.parsed}
        if self.problem:
            document["problem"] = self.problem
        return dump_exact(document)


def peek(
    log: Log,
    begin: From,
    *,
    lane: str = "main",
    records_max: int | None = None,
    follow: bool = False,
    framing: Framing | None = None,
    stop: threading.Event | None = None,
    tell: Callable[[Waiting | None], None] = lambda waiting: None,
) -> Iterator[Peeked]:
    """Give records from `begin` on, at most `records_max`; with `follow`, what arrives until `stop` is set.

    No reader's position is moved. Raises RefusedError for a place that the log does not have.
    """
    stop = stop or threading.Event()
    ranges = log.partitions()
    ends = {each.partition: each.end for each in ranges}
    left = records_max
    # Who follows must not go on behind records that are left out.
    for records in _present(log, begin, ranges, ends, settled=not follow):
        for peeked in _peeked(log.stream, lane, records.slice(0, left), framing):
            if stop.is_set():
                return
            yield peeked
        left = None if left is None else left - min(left, records.num_rows)
        if left == 0:
            return
    only = None if begin.offset is None else begin.offset[0]
    positions = dict(ends)
    while follow and not stop.is_set() and left != 0:
        given = when_ready(
            lambda at=dict(positions): log.read(  # type: ignore[misc]
                at, rows_max=1000, bytes_max=1 << 24, wait=_FOLLOW_WAIT
            ),
            stop,
            tell,
        )
        if given is None:
            return
        records = given.records
        if only is not None:
            records = records.filter(pc.equal(records.column("partition"), only))
        yield from _peeked(log.stream, lane, records.slice(0, left), framing)
        left = None if left is None else left - min(left, records.num_rows)
        positions.update(given.next)


def _present(
    log: Log, begin: From, ranges: tuple[PartitionRange, ...], ends: Mapping[int, int], *, settled: bool
) -> Iterator[pa.Table]:
    if begin.offset is not None:
        partition, offset = begin.offset
        held = next((each for each in ranges if each.partition == partition), None)
        if held is None or not held.start <= offset <= held.end:
            known = ", ".join(f"{each.partition}: {each.start} to {each.end}" for each in ranges)
            raise RefusedError(
                f"stream '{log.stream}' does not hold offset {offset} of partition {partition}",
                fix=f"its partitions hold these offsets: {known}",
            )
        yield from read_between(log, {partition: offset}, ends, settled=settled)
    elif begin.beginning:
        starts = {each.partition: each.start for each in ranges}
        yield from read_between(log, starts, ends, settled=settled)
    elif begin.last > 0:
        last = min(begin.last, _LAST_MAX)
        starts = clamped({each.partition: each.end - last for each in ranges}, ranges)
        found = list(read_between(log, starts, ends, settled=settled))
        if found:
            order = [(name, "ascending") for name in ("record_time", "partition", "offset")]
            records = pa.concat_tables(found).sort_by(order)
            yield records.slice(max(0, records.num_rows - last))


def _peeked(stream: str, lane: str, records: pa.Table, framing: Framing | None) -> Iterator[Peeked]:
    if not records.num_rows:
        return
    texts: list[bytes | None] = records.column("value").to_pylist()
    problems: Mapping[int, tuple[tuple[str, str], ...]] = {}
    if framing is not None:
        documents = framing.documents(records)
        problems = documents.unreadable
        for row, text in enumerate(documents.texts.to_pylist()):
            texts[row] = texts[row] if text is None else text
    place = stream if lane == "main" else f"{stream}@{lane}"
    for row, record in enumerate(records.to_pylist()):
        why = "; ".join(f"{rule}: {reason}" for rule, reason in problems.get(row, ()))
        form, parsed = ("bytes", _escaped(texts[row] or b"")) if why else _read(texts[row])
        headers = [{"key": h["key"], "value": _text(h["value"])} for h in record["headers"] or ()]
        facts = {
            "stream": stream,
            "lane": lane,
            "partition": record["partition"],
            "offset": record["offset"],
            "record_time": record["record_time"].isoformat(),
            "key": _text(record["key"]),
            "headers": headers,
        }
        yield Peeked(f"{place}:{record['partition']}:{record['offset']}", facts, form, parsed, why)


def _read(value: bytes | None) -> tuple[str, Any]:
    if value is None:
        return "tombstone", None
    try:
        return "json", load_exact(value)
    except (ValueError, RecursionError):
        pass
    text = _escaped(value)
    return ("bytes" if "\\x" in text else "text"), text


def _text(value: bytes | None) -> str | None:
    return None if value is None else _escaped(value)


def _escaped(value: bytes) -> str:
    """Return text; bytes that are none are written as in a Python literal."""
    return printable(value.decode("utf-8", "backslashreplace"), _LAYOUT)
