"""What a log holds and who reads it; single records, without moving anybody."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from headrace.errors import RefusedError
from headrace.log import APPEND_SCHEMA, EmbeddedLog, open_embedded_log
from headrace.log.documents import Documents
from headrace.operate.log_tools import From, Peeked, describe_log, peek, settings_of
from headrace.operate.secrets import Secret

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.fixture
def log(tmp_path: Path) -> Iterator[EmbeddedLog]:
    opened = open_embedded_log(tmp_path / "log.db", "events", partitions=2)
    empty = dict.fromkeys(APPEND_SCHEMA.names)
    rows = [
        {**empty, "partition": n % 2, "record_time": NOON + timedelta(seconds=n), "value": b'{"n": %d}' % n}
        for n in range(20)
    ]
    opened.append(pa.Table.from_pylist(rows, schema=APPEND_SCHEMA))
    yield opened
    opened.close()


def numbers(peeked: Iterator[Peeked]) -> list[Any]:
    return [each.parsed["n"] for each in peeked]


def test_a_log_is_described_with_its_readers_and_their_lag(log: EmbeddedLog) -> None:
    log.publish("engine", {0: 7, 1: 10})
    log.publish("other", {0: 10})
    document = describe_log(log)
    assert (document["records"], document["bytes_estimated"]) == (20, False)
    assert [(p["start"], p["end"], p["records"]) for p in document["partitions"]] == [(0, 10, 10)] * 2
    assert sum(p["share"] for p in document["partitions"]) == pytest.approx(1)
    assert document["bytes"] == sum(p["bytes"] for p in document["partitions"]) > 0
    lags = {each["reader"]: [p["lag_records"] for p in each["partitions"]] for each in document["readers"]}
    assert lags == {"engine": [3, 0], "other": [0, 10]}


def test_bytes_are_estimated_where_a_log_does_not_know_them(log: EmbeddedLog) -> None:
    class Unknowing:
        stream, identity = log.stream, log.identity
        partitions, read, readers = log.partitions, log.read, log.readers

    document = describe_log(Unknowing())  # type: ignore[arg-type]
    assert document["bytes_estimated"] is True
    assert document["bytes"] == pytest.approx(sum(len(b'{"n": %d}' % n) for n in range(20)), abs=2)


def test_records_are_chosen_by_place_and_number(log: EmbeddedLog) -> None:
    assert numbers(peek(log, From(last=3))) == [17, 18, 19]
    assert numbers(peek(log, From(last=0))) == []
    assert numbers(peek(log, From(beginning=True), records_max=4)) == [0, 1, 2, 3]
    assert numbers(peek(log, From(beginning=True))) == list(range(20))
    assert numbers(peek(log, From(offset=(1, 8)))) == [17, 19]
    assert numbers(peek(log, From(offset=(1, 10)))) == []
    for partition, offset in ((1, 11), (2, 0)):
        with pytest.raises(RefusedError, match="does not hold offset"):
            list(peek(log, From(offset=(partition, offset))))
    for wrong in ("", "1", "a:1", "1:-1"):
        with pytest.raises(RefusedError, match="PARTITION:OFFSET"):
            From.parse_offset(wrong)
    assert log.readers() == {}


def test_a_look_that_follows_gives_what_arrives_until_it_is_stopped(log: EmbeddedLog) -> None:
    stop, found = threading.Event(), []
    third = threading.Event()

    def look() -> None:
        for each in peek(log, From(last=1), follow=True, stop=stop):
            found.append(each.parsed["n"])
            if len(found) == 3:
                third.set()

    looking = threading.Thread(target=look)
    looking.start()
    for number in (100, 101):
        log.append(pa.table({"value": pa.array([b'{"n": %d}' % number], pa.binary())}))
    assert third.wait(20)
    stop.set()
    looking.join(20)
    assert not looking.is_alive()
    assert found == [19, 100, 101]
    assert numbers(peek(log, From(last=1), follow=True, records_max=1)) == [101]


def test_a_value_is_shown_as_what_it_is(tmp_path: Path) -> None:
    log = open_embedded_log(tmp_path / "log.db", "events")
    values = [
        b'{"price": 1.10, "tags": ["a", {}], "\xc3\xa9": null}',
        b"plain \xc3\xa9",
        b"\xff\x1b[31m",
        None,
    ]
    log.append(pa.table({"value": pa.array(values, pa.binary()), "key": pa.array([b"k"] * 4, pa.binary())}))
    shown = list(peek(log, From()))
    assert [each.form for each in shown] == ["json", "text", "bytes", "tombstone"]
    assert shown[0].pretty() == '{\n  "price": 1.10,\n  "tags": [\n    "a",\n    {}\n  ],\n  "é": null\n}'
    assert [each.pretty() for each in shown[1:]] == ["plain é", "\\xff\\x1b[31m", "(a tombstone: no value)"]
    assert '"value":{"price":1.10,"tags":["a",{}],"é":null}' in shown[0].line()
    for each in shown:
        document = json.loads(each.line())
        assert (document["key"], document["partition"]) == ("k", 0)
    assert shown[3].address == "events:0:3"
    log.close()


def test_a_stream_in_a_format_of_its_own_is_shown_as_what_it_says(log: EmbeddedLog) -> None:
    class Shouting:
        def documents(self, records: pa.Table) -> Documents:
            count = records.num_rows
            texts = [b'{"said": "HEY"}'] * (count - 1) + [None]
            return Documents(pa.array(texts, pa.binary()), {count - 1: (("schema", "no such schema"),)})

        def close(self) -> None:
            pass

    shown = list(peek(log, From(last=2), framing=Shouting()))
    assert shown[0].parsed == {"said": "HEY"}
    assert (shown[1].form, shown[1].problem) == ("bytes", "schema: no such schema")
    assert json.loads(shown[1].line())["problem"] == "schema: no such schema"


def test_settings_never_show_a_secret() -> None:
    from headrace.operate.ingest_options import IngestOptions

    shown = settings_of(IngestOptions(token=Secret("hidden")))
    assert shown["token"] == "****"
    assert shown["record_bytes_max"] == 1_000_000
