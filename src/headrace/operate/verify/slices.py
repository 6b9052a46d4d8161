"""What a verification reads: a part of the streams' logs, or records from a file.

A file has one JSON object per line, as `headrace log peek --json` prints records, or written by hand:

    stream       the stream's name; may be left out where the pipeline has one
    partition    0 when it is left out
    offset       in any order, none twice; when it is left out, the one after the greatest of its partition
    record_time  ISO 8601, UTC where it names no zone
    key, headers text; may be left out
    value        an object is written as JSON, a text is taken as it is, {"base64": "…"} are bytes, null is a
                 tombstone. With `form` (json, text, tombstone) a value is what `log peek` means by it
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from headrace.errors import RefusedError
from headrace.log.between import read_between
from headrace.log.protocol import RECORD_SCHEMA, Log, PartitionRange
from headrace.operate.exact_json import dump_exact, load_exact

__all__ = ["RECORDS_MAX", "OffsetRange", "Recorded", "Wanted", "read_file", "slice_logs"]

RECORDS_MAX = 1_000_000
"""Both engines read a slice from empty on one machine; a longer one has to be asked for."""

_PARTITION_MAX = 999
_LOOK_BACK = (1, 16, 4096)
"""How far behind a partition's end its last record is looked for: marks of transactions hold offsets too."""


@dataclass(frozen=True)
class OffsetRange:
    """The offsets of one partition from `start` on, before `end`."""

    stream: str
    partition: int
    start: int
    end: int

    @staticmethod
    def parse(text: str) -> OffsetRange:
        """Read `STREAM/PARTITION:START-END`. Raises RefusedError."""
        stream, slash, place = text.rpartition("/")
        partition, colon, span = place.partition(":")
        start, dash, end = span.partition("-")
        whole = partition.isdecimal() and start.isdecimal() and end.isdecimal()
        if not (slash and colon and dash and stream and whole and int(start) < int(end)):
            raise RefusedError(
                f"'{text}' is no range of offsets", fix="write STREAM/PARTITION:START-END: events/0:100-200"
            )
        return OffsetRange(stream, int(partition), int(start), int(end))


@dataclass(frozen=True)
class Wanted:
    """Which records of logs to take: those of the newest `last`, or the `offsets` that are named."""

    last: timedelta | None = None
    offsets: tuple[OffsetRange, ...] = ()
    records_max: int = RECORDS_MAX


@dataclass(frozen=True)
class Recorded:
    """Records that stay the same however often they are read.

    partitions  by stream, how many its log has
    total       how many records there are, at most: logs may have offsets without one
    records     gives (stream, RECORD_SCHEMA), those of a partition in the order of their offsets
    """

    partitions: Mapping[str, int]
    total: int
    records: Callable[[], Iterator[tuple[str, pa.Table]]]
    spans: Mapping[str, Mapping[int, tuple[int, int]]] = field(default_factory=dict)
    """By stream and partition, the offsets: first and next."""


def slice_logs(logs: Mapping[str, Log], wanted: Wanted) -> Recorded:
    """Choose a part of opened logs; nobody's position is moved.

    Raises RefusedError when nothing lies in it, when it is longer than `records_max`, or when offsets are
    named that a log does not hold.
    """
    ranges = {name: log.partitions() for name, log in logs.items()}
    spans = _named(ranges, wanted.offsets) if wanted.offsets else _newest(logs, ranges, wanted.last)
    total = sum(end - start for places in spans.values() for start, end in places.values())
    if not total:
        raise RefusedError("the slice holds no record", fix="name another part of the log, or a file")
    if total > wanted.records_max:
        raise RefusedError(
            f"the slice holds {total:,} records; both engines would read all of them",
            fix=f"take a shorter one (--last, --offsets), or allow it: --records-max {total}",
        )

    def records() -> Iterator[tuple[str, pa.Table]]:
        for name, log in logs.items():
            places = spans.get(name, {})
            starts = {partition: start for partition, (start, _) in places.items()}
            ends = {partition: end for partition, (_, end) in places.items()}
            for found in read_between(log, starts, ends):
                # A slice is in the order of record times, which may differ from that of the offsets.
                yield name, found.sort_by([("partition", "ascending"), ("offset", "ascending")])

    return Recorded({name: len(known) for name, known in ranges.items()}, total, records, spans)


def _named(
    ranges: Mapping[str, tuple[PartitionRange, ...]], offsets: tuple[OffsetRange, ...]
) -> dict[str, dict[int, tuple[int, int]]]:
    spans: dict[str, dict[int, tuple[int, int]]] = {}
    for each in offsets:
        if each.stream not in ranges:
            raise RefusedError(
                f"the pipeline has no stream '{each.stream}'", fix="it has: " + ", ".join(ranges)
            )
        held = next((one for one in ranges[each.stream] if one.partition == each.partition), None)
        if held is None or each.start < held.start or each.end > held.end:
            known = ", ".join(f"{one.partition}: {one.start} to {one.end}" for one in ranges[each.stream])
            raise RefusedError(
                f"stream '{each.stream}' does not hold offsets {each.start} to {each.end} of partition "
                f"{each.partition}",
                fix=f"its partitions hold: {known}",
            )
        if each.partition in spans.setdefault(each.stream, {}):
            raise RefusedError(
                f"partition {each.partition} of stream '{each.stream}' is named twice",
                fix="name one range of each partition",
            )
        spans[each.stream][each.partition] = (each.start, each.end)
    return spans


def _newest(
    logs: Mapping[str, Log], ranges: Mapping[str, tuple[PartitionRange, ...]], last: timedelta | None
) -> dict[str, dict[int, tuple[int, int]]]:
    whole = {
        name: {one.partition: (one.start, one.end) for one in known if one.end > one.start}
        for name, known in ranges.items()
    }
    if last is None:
        return whole
    ends = [_last_time(logs[name], one) for name, known in ranges.items() for one in known]
    times = [time for time in ends if time is not None]
    if not times:
        return {}
    since = max(times) - last
    spans = {}
    for name, places in whole.items():
        spans[name] = {
            partition: (first, end)
            for partition, (start, end) in places.items()
            if (first := _first_since(logs[name], partition, start, end, since)) < end
        }
    return spans


def _one(log: Log, partition: int, start: int, end: int) -> dict[str, Any] | None:
    """Return the first record of a partition within offsets."""
    found = next(read_between(log, {partition: start}, {partition: end}, rows_max=1), None)
    return None if found is None else found.slice(0, 1).to_pylist()[0]


def _last_time(log: Log, held: PartitionRange) -> datetime | None:
    for back in (*_LOOK_BACK, held.end):
        start = max(held.start, held.end - back)
        if start >= held.end:
            return None
        found = list(read_between(log, {held.partition: start}, {held.partition: held.end}))
        if found:
            newest: datetime = pc.max(pa.concat_tables(found).column("record_time")).as_py()
            return newest
    return None


def _first_since(log: Log, partition: int, start: int, end: int, since: datetime) -> int:
    """Return an offset from which on record times are `since` or later.

    Found by halves: where a clock stepped back, it is one of the places at which the time is reached.
    """
    low, high = start, end
    while low < high:
        middle = (low + high) // 2
        found = _one(log, partition, middle, high)
        if found is None or found["record_time"] >= since:
            high = middle
        else:
            low = int(found["offset"]) + 1
    return low


def read_file(path: Path, streams: tuple[str, ...], *, records_max: int = RECORDS_MAX) -> Recorded:
    """Read records from a file. Raises RefusedError that names the line which is wrong."""
    rows: dict[str, list[dict[str, Any]]] = {name: [] for name in streams}
    ends: dict[tuple[str, int], int] = {}
    places: set[tuple[str, int, int]] = set()
    try:
        with path.open("rb") as lines:
            for number, line in enumerate(lines, start=1):
                if not line.strip():
                    continue
                if number > records_max:
                    raise RefusedError(f"{path} has more than {records_max:,} lines", fix="--records-max N")
                try:
                    stream, row = _row(load_exact(line), streams, ends, places)
                except (ValueError, RecursionError) as error:
                    raise RefusedError(
                        f"{path}:{number}: {error}", fix="see `headrace verify --help` for what a line holds"
                    ) from None
                rows[stream].append(row)
    except OSError as error:
        raise RefusedError(f"{path} cannot be read: {error.strerror}") from error
    if not ends:
        raise RefusedError(f"{path} holds no record", fix="name another file")
    tables = {
        name: pa.Table.from_pylist(_by_offset(found), RECORD_SCHEMA) for name, found in rows.items() if found
    }
    spans: dict[str, dict[int, tuple[int, int]]] = {name: {} for name in streams}
    for name, table in tables.items():
        for each in table.group_by("partition").aggregate([("offset", "min"), ("offset", "max")]).to_pylist():
            spans[name][each["partition"]] = (each["offset_min"], each["offset_max"] + 1)
    partitions = {name: max(known, default=0) + 1 for name, known in spans.items()}
    total = sum(table.num_rows for table in tables.values())
    return Recorded(partitions, total, lambda: iter(tables.items()), spans)


def _by_offset(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return rows with those of each partition in the order of their offsets, where rows of it were."""
    left: dict[int, list[dict[str, Any]]] = {}
    for row in sorted(rows, key=lambda row: -int(row["offset"])):
        left.setdefault(row["partition"], []).append(row)
    return [left[row["partition"]].pop() for row in rows]


def _row(
    line: Any,
    streams: tuple[str, ...],
    ends: dict[tuple[str, int], int],
    places: set[tuple[str, int, int]],
) -> tuple[str, dict[str, Any]]:
    if not isinstance(line, dict):
        raise ValueError("a line is not a JSON object")
    stream = line.get("stream", streams[0] if len(streams) == 1 else None)
    if stream not in streams:
        raise ValueError(f"its stream is none of: {', '.join(streams)}")
    if line.get("lane", "main") != "main":
        raise ValueError("a record of a side lane; only the stream itself is verified")
    partition = _whole(line, "partition", 0)
    if partition > _PARTITION_MAX:
        raise ValueError(f"a partition is {_PARTITION_MAX} at most")
    following = ends.get((stream, partition), 0)
    offset = _whole(line, "offset", following)
    if (stream, partition, offset) in places:
        raise ValueError(f"offset {offset} of partition {partition} comes twice")
    places.add((stream, partition, offset))
    ends[stream, partition] = max(following, offset + 1)
    return stream, {
        "partition": partition,
        "offset": offset,
        "record_time": _instant(line.get("record_time")),
        "key": _text(line.get("key"), "key"),
        "value": _value(line),
        "headers": _headers(line.get("headers")),
    }


def _whole(line: Mapping[str, Any], name: str, default: int) -> int:
    value = line.get(name, default)
    if type(value) is not int or not 0 <= value < 1 << 62:
        raise ValueError(f"'{name}' is not a whole number")
    return value


def _instant(value: Any) -> datetime:
    if not isinstance(value, str):
        raise ValueError("it has no record_time (ISO 8601)")
    found = datetime.fromisoformat(value)
    return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)


def _text(value: Any, name: str) -> bytes | None:
    if value is None or isinstance(value, str):
        return None if value is None else value.encode()
    return _bytes(value, name)


def _bytes(value: Any, name: str) -> bytes:
    if isinstance(value, dict) and list(value) == ["base64"] and isinstance(value["base64"], str):
        try:
            return base64.b64decode(value["base64"], validate=True)
        except binascii.Error:
            pass
    raise ValueError(f"'{name}' is neither text nor {{\"base64\": …}}")


def _headers(value: Any) -> list[dict[str, Any]] | None:
    if value is None:
        return None
    if not isinstance(value, list) or not all(
        isinstance(one, dict) and isinstance(one.get("key"), str) for one in value
    ):
        raise ValueError('\'headers\' is not a list of {"key": …, "value": …}')
    return [{"key": one["key"], "value": _text(one.get("value"), "headers")} for one in value] or None


def _value(line: Mapping[str, Any]) -> bytes | None:
    if "value" not in line:
        raise ValueError("it has no value")
    value, form = line["value"], line.get("form")
    if form == "bytes":
        raise ValueError('bytes that are no text, which `log peek` shows escaped: write {"base64": …}')
    if form == "json":
        return dump_exact(value).encode()
    if value is None:
        return None
    if isinstance(value, str):
        return value.encode()
    if isinstance(value, dict) and list(value) == ["base64"]:
        return _bytes(value, "value")
    return dump_exact(value).encode()
