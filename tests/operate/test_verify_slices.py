"""Which records a verification takes: the newest of a log, named offsets, or those of a file."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

import headrace as hr
from headrace.errors import RefusedError
from headrace.log.protocol import Log
from headrace.operate.log_tools import From, peek
from headrace.operate.verify import OffsetRange, Recorded, Wanted, read_file, slice_logs
from headrace.testing import OpenLog, PipelineTest
from log.kafka_streams import Writer
from servers.topics import kafka_topics

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


@contextmanager
def _log(minutes: dict[int, list[int]], open_log: OpenLog | None = None) -> Iterator[Log]:
    """A log of two partitions with a record at each of these minutes."""
    pipeline = hr.Pipeline("slices")
    pipeline.stream("events", schema="n INT")
    with PipelineTest(pipeline, partitions=2, start=NOON, open_log=open_log) as test:
        for partition, times in minutes.items():
            for time in times:
                test.send("events", {"n": time}, at=NOON + timedelta(minutes=time), partition=partition)
        yield test.log("events")


def _offsets(recorded: Recorded) -> dict[int, list[int]]:
    found: dict[int, list[int]] = {}
    for _, records in recorded.records():
        for row in records.to_pylist():
            found.setdefault(row["partition"], []).append(row["offset"])
    return found


def test_the_newest_part_reaches_back_from_the_newest_record_of_all_partitions() -> None:
    with _log({0: [*range(0, 120)], 1: [*range(50)]}) as log:
        whole = slice_logs({"events": log}, Wanted())
        assert (whole.total, whole.partitions) == (170, {"events": 2})
        hour = slice_logs({"events": log}, Wanted(timedelta(hours=1)))
        assert hour.spans == {"events": {0: (59, 120)}}
        assert _offsets(hour) == {0: [*range(59, 120)]}
        longer = slice_logs({"events": log}, Wanted(timedelta(minutes=79)))
        assert longer.spans == {"events": {0: (40, 120), 1: (40, 50)}}


def test_the_newest_part_of_a_topic_passes_over_what_transactions_left_in_it(kafka_broker: str) -> None:
    with kafka_topics(kafka_broker) as topics, _log({0: [*range(30)], 1: [0, 1]}, topics.open_log) as log:
        writer = Writer(kafka_broker, topics.settings("events").topic)
        for _ in range(3):  # a mark takes an offset as a record does
            writer.write(b"never")
            writer.abort()
        whole = slice_logs({"events": log}, Wanted())
        assert _offsets(whole) == {0: [*range(30)], 1: [0, 1]}
        newest = slice_logs({"events": log}, Wanted(timedelta(minutes=9)))
        assert newest.spans == {"events": {0: (20, 36)}}
        assert _offsets(newest) == {0: [*range(20, 30)]}
        named = slice_logs({"events": log}, Wanted(offsets=(OffsetRange.parse("events/1:1-2"),)))
        assert _offsets(named) == {1: [1]}


def test_where_a_clock_stepped_back_the_part_has_no_holes() -> None:
    with _log({0: [0, 30, 5, 31, 32]}) as log:
        found = slice_logs({"events": log}, Wanted(timedelta(minutes=10)))
        start, end = found.spans["events"][0]
        assert end == 5
        assert _offsets(found) == {0: [*range(start, end)]}
        assert start in (1, 3)


def test_offsets_are_taken_as_they_are_named() -> None:
    with _log({0: [*range(9)], 1: [*range(9)]}) as log:
        named = (OffsetRange.parse("events/1:2-4"), OffsetRange("events", 0, 0, 1))
        assert _offsets(slice_logs({"events": log}, Wanted(offsets=named))) == {0: [0], 1: [2, 3]}


@pytest.mark.parametrize(
    ("offsets", "told"),
    [
        (["events/0:5-99"], "its partitions hold: 0: 0 to 3"),
        (["events/7:0-1"], "does not hold offsets"),
        (["other/0:0-1"], "no stream 'other'"),
        (["events/0:0-1", "events/0:1-2"], "named twice"),
    ],
)
def test_offsets_that_a_log_does_not_hold_are_refused(offsets: list[str], told: str) -> None:
    with _log({0: [0, 1, 2]}) as log, pytest.raises(RefusedError) as refused:
        slice_logs({"events": log}, Wanted(offsets=tuple(map(OffsetRange.parse, offsets))))
    assert told in str(refused.value)


@pytest.mark.parametrize(
    "text", ["", "events", "events/0", "events/0:5", "events/0:5-5", "/0:1-2", "e/x:1-2"]
)
def test_a_range_that_is_none_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(RefusedError, match="STREAM/PARTITION:START-END"):
        OffsetRange.parse(text)


def test_an_empty_slice_and_one_that_is_too_long_are_refused() -> None:
    with _log({}) as log, pytest.raises(RefusedError, match="no record"):
        slice_logs({"events": log}, Wanted(timedelta(hours=1)))
    with _log({0: [0, 1, 2]}) as log, pytest.raises(RefusedError, match="--records-max 3"):
        slice_logs({"events": log}, Wanted(records_max=2))


def _file(tmp_path: Path, *lines: Any) -> Path:
    path = tmp_path / "records.ndjson"
    path.write_text("".join((one if isinstance(one, str) else json.dumps(one)) + "\n" for one in lines))
    return path


AT = "2026-03-01T12:00:00"


def test_a_file_keeps_times_keys_headers_partitions_offsets_and_bytes(tmp_path: Path) -> None:
    path = _file(
        tmp_path,
        f'{{"record_time": "{AT}", "value": {{"n": 1.50}}}}',
        "",
        {"record_time": f"{AT}.000001+01:00", "partition": 1, "offset": 7, "key": "k", "value": "{not json"},
        {
            "record_time": AT,
            "partition": 1,
            "value": {"base64": "/wA="},
            "headers": [{"key": "h", "value": "é"}],
        },
        {"record_time": AT, "stream": "other", "value": None},
    )
    with pytest.raises(RefusedError, match=r"records\.ndjson:1: its stream is none of: events, other"):
        read_file(path, ("events", "other"))
    path.write_text(path.read_text().replace('"stream": "other", ', ""))
    found = read_file(path, ("events",))
    rows = {
        (row["partition"], row["offset"]): row for _, table in found.records() for row in table.to_pylist()
    }
    assert [*rows] == [(0, 0), (1, 7), (1, 8), (0, 1)]
    assert rows[0, 0]["value"] == b'{"n":1.50}'
    assert rows[1, 7]["record_time"] == datetime(2026, 3, 1, 11, 0, 0, 1, tzinfo=UTC)
    assert (rows[1, 7]["key"], rows[1, 7]["value"]) == (b"k", b"{not json")
    assert (rows[1, 8]["value"], rows[1, 8]["headers"]) == (
        b"\xff\x00",
        [{"key": "h", "value": "é".encode()}],
    )
    assert rows[0, 1]["value"] is None
    assert (found.total, found.partitions) == (4, {"events": 2})


def test_what_log_peek_prints_is_what_a_file_holds(tmp_path: Path) -> None:
    pipeline = hr.Pipeline("slices")
    pipeline.stream("events", schema="n INT")
    sent = [b'{"n": 1.10}', b"plain", None, b'"a text in JSON"', b"12"]
    with PipelineTest(pipeline, start=NOON) as test:
        test.send_bytes("events", sent)
        lines = [one.line() for one in peek(test.log("events"), From(beginning=True))]
    found = read_file(_file(tmp_path, *lines), ("events",))
    [(_, records)] = found.records()
    given = records.column("value").to_pylist()
    assert given[1:] == [b"plain", None, b'"a text in JSON"', b"12"]
    assert given[0] == b'{"n":1.10}'


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("{", ":1: "),
        ("[]", "not a JSON object"),
        ({"value": "x"}, "no record_time"),
        ({"record_time": "soon", "value": "x"}, "soon"),
        ({"record_time": AT}, "no value"),
        ({"record_time": AT, "value": "x", "partition": -1}, "'partition' is not a whole number"),
        ({"record_time": AT, "value": "x", "partition": True}, "'partition' is not a whole number"),
        ({"record_time": AT, "value": "x", "partition": 5000}, "999 at most"),
        ({"record_time": AT, "value": {"base64": "?"}}, "'value' is neither"),
        ({"record_time": AT, "value": "x", "headers": {}}, "'headers' is not a list"),
        ({"record_time": AT, "value": "x", "key": 5}, "'key' is neither"),
        ({"record_time": AT, "value": "x", "lane": "redrive"}, "side lane"),
        ({"record_time": AT, "value": "\\xff", "form": "bytes"}, "base64"),
        ({"record_time": AT, "value": "x", "stream": "evnts"}, "its stream is none of: events"),
    ],
)
def test_a_wrong_line_of_a_file_is_named(tmp_path: Path, line: Any, told: str) -> None:
    with pytest.raises(RefusedError) as refused:
        read_file(_file(tmp_path, line), ("events",))
    assert "records.ndjson:1: " in refused.value.message
    assert told in refused.value.message


def test_records_of_a_file_may_stand_in_the_order_of_their_times(tmp_path: Path) -> None:
    lines = [{"record_time": AT, "value": str(offset), "offset": offset} for offset in (1, 120, 2)]
    found = read_file(_file(tmp_path, *lines, {"record_time": AT, "value": "121"}), ("events",))
    [(_, records)] = found.records()
    assert records.column("offset").to_pylist() == [1, 2, 120, 121]
    assert found.spans == {"events": {0: (1, 122)}}


def test_no_offset_of_a_file_comes_twice_and_a_file_is_not_empty_nor_too_long(tmp_path: Path) -> None:
    record = {"record_time": AT, "value": "x", "offset": 3}
    with pytest.raises(RefusedError, match="offset 3 of partition 0 comes twice"):
        read_file(_file(tmp_path, record, record), ("events",))
    with pytest.raises(RefusedError, match="no record"):
        read_file(_file(tmp_path, ""), ("events",))
    with pytest.raises(RefusedError, match="more than 1 lines"):
        read_file(_file(tmp_path, record, record), ("events",), records_max=1)
    with pytest.raises(RefusedError, match="cannot be read"):
        read_file(tmp_path / "absent", ("events",))
