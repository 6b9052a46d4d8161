"""Requests become records: once, together, all or nothing; and what happens when the process dies."""

from __future__ import annotations

import gzip
import os
import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from headrace.log import Appended, EmbeddedLog, open_embedded_log
from headrace.log.answered import AnsweredKeys
from headrace.log.kafka import open_kafka_log
from headrace.produce.fields import Fields, utc_connection
from headrace.produce.ingest import Ingest, IngestLimits
from headrace.produce.ingest_body import (
    RefusedRequest,
    content_type_of,
    decompressed,
    key_bytes,
    read_records,
)
from headrace.produce.ingest_keys import REQUEST_HEADER
from headrace.produce.lines import Chunk
from servers.topics import kafka_topics

WAIT_S = 20
HOUR_US = 3_600_000_000


class Opened:
    """A log with an ingest in front of it, and what is needed to open both again after a "crash"."""

    def __init__(self, folder: Path, *, partitions: int = 1, **limits: Any) -> None:
        self.folder, self.partitions, self.limits = folder, partitions, limits
        self.open()

    def open(self) -> None:
        self.log = open_embedded_log(self.folder / "log.db", "events", partitions=self.partitions)
        self.answered = AnsweredKeys(self.folder / "ingest.db", kept_us=HOUR_US, keys_max=1000)
        self.ingest = Ingest({"events": self.log}, answered=self.answered, limits=IngestLimits(**self.limits))

    def close(self) -> None:
        self.ingest.close()
        self.answered.close()
        self.log.close()

    def send(self, *values: bytes, key: str | None = None) -> Any:
        return self.ingest.submit("events", list(values), None, idempotency_key=key).result(WAIT_S)

    def values(self) -> list[bytes]:
        return values_of(self.log)


def values_of(log: EmbeddedLog) -> list[bytes]:
    rows = log.read({}, rows_max=10_000, bytes_max=1 << 30, wait=timedelta()).records
    return rows.column("value").to_pylist()


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Opened]:
    made = Opened(tmp_path)
    yield made
    made.close()


def body(content: bytes, kind: str = "json", **changes: Any) -> list[bytes]:
    limits = {"key": None, "record_bytes_max": 1000, "records_max": 100, **changes}
    return read_records(content, kind, **limits).values


def test_records_keep_the_bytes_that_came() -> None:
    elements = b' [ {"a": 1.10, "b" : "\xc3\xa9"} ,2, [ ],"x" ,null ] '
    assert body(elements) == [b'{"a": 1.10, "b" : "\xc3\xa9"}', b"2", b"[ ]", b'"x"', b"null"]
    assert body(b'\xef\xbb\xbf{"a" : 1}\n') == [b'{"a" : 1}']
    assert body(b'{"a":1}\r\n\r\n  {"b":2}', "ndjson") == [b'{"a":1}', b'{"b":2}']
    digits = b"9" * 5000
    assert body(digits, "ndjson", record_bytes_max=5000) == [digits]


@pytest.mark.parametrize(
    ("content", "kind", "place"),
    [
        (b'{"a":1}\n{"a":\n', "ndjson", "line 2"),
        (b'{"a":1} {"a":2}\n', "ndjson", "line 1"),
        (b'{"a":1}\n\n{"a":"\xff"}\n', "ndjson", "line 3: not UTF-8 at byte 7"),
        (b'[{"a":1},{"a":}]', "json", "element 2"),
        (b'[{"a":1} {"a":2}]', "json", "element 1"),
        (b'[{"a":1},', "json", "element 2"),
        (b"[1,2", "json", "element 2"),
        (b"[1,Infinity]", "json", "element 2: not JSON: Infinity is not JSON"),
        (b"[1] 2", "json", "the array: something follows"),
        (b'{"a":1}{"a":2}', "json", "several objects need an array or NDJSON"),
        (b"[" * 100_000, "json", "nested too deeply"),
        (b"12", "json", "neither an array nor an object"),
        (b"", "json", "neither an array nor an object"),
        (b"[]", "json", "no record"),
        (b" \n\n", "ndjson", "no record"),
    ],
)
def test_what_is_no_json_is_refused_with_its_place(content: bytes, kind: str, place: str) -> None:
    with pytest.raises(RefusedRequest, match=place) as refused:
        body(content, kind)
    assert refused.value.status == 400


def test_too_large_too_many_and_unknown_kinds_have_their_own_status() -> None:
    for content, changes in ((b'["' + b"x" * 2000 + b'"]', {}), (b"[1,2,3]", {"records_max": 2})):
        with pytest.raises(RefusedRequest) as refused:
            body(content, **changes)
        assert refused.value.status == 413
    assert decompressed(gzip.compress(b"12"), "gzip", bytes_max=2) == b"12"
    assert decompressed(gzip.compress(b""), "gzip", bytes_max=2) == b""
    for sent, encoding, status in (
        (gzip.compress(b"1" * 100_000), "gzip", 413),
        (gzip.compress(b"1" * 50)[:-3], "gzip", 400),
        (b"plain", "gzip", 400),
        (b"", "br", 415),
    ):
        with pytest.raises(RefusedRequest) as refused:
            decompressed(sent, encoding, bytes_max=1000)
        assert refused.value.status == status
    assert content_type_of("Application/JSON; charset=utf-8") == "json"
    with pytest.raises(RefusedRequest, match="text/plain"):
        content_type_of("text/plain")


def test_a_body_says_how_it_grows_before_it_has_grown() -> None:
    told: list[int] = []

    def grows(size: int) -> None:
        told.append(size)
        if size > 1_000_000:
            raise RefusedRequest(429, "enough")

    with pytest.raises(RefusedRequest, match="enough"):
        decompressed(gzip.compress(b" " * 8_000_000), "gzip", bytes_max=8_000_000, grows=grows)
    assert told[-1] < 2_000_000 and told == sorted(told)


def test_a_key_has_the_bytes_that_produce_would_take() -> None:
    texts = [b'{"k":"a"}', b'{"k":7}', b'{"k":1.10}', b'{"k":true}', b'{"k":{"x": 1}}', b'{"k":null}', b"[]"]
    connection = utc_connection()
    for chosen in ([texts[0], texts[1], texts[3], texts[5], texts[6]], texts):
        records = read_records(b"\n".join(chosen), "ndjson", key="k", record_bytes_max=100, records_max=100)
        fields = Fields(lambda: connection, "k", None)
        ((_, expected),) = fields.tables(iter([Chunk(pa.array(chosen, pa.binary()), 0)]))
        assert key_bytes(records, "k").to_pylist() == expected.column("key").to_pylist()
    connection.close()


def test_an_answer_says_where_the_records_lie_also_when_requests_share_an_append(tmp_path: Path) -> None:
    opened = Opened(tmp_path, partitions=3)
    answers: dict[int, Any] = {}

    def send(number: int) -> None:
        values = [b"%d-%d" % (number, each) for each in range(5)]
        keys = pa.array([b"k%d" % (number * each) for each in range(5)], pa.binary())
        sent = opened.ingest.submit("events", values, keys, idempotency_key=None)
        answers[number] = sent.result(WAIT_S)

    threads = [threading.Thread(target=send, args=(number,)) for number in range(40)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    rows = opened.log.read({}, rows_max=1000, bytes_max=1 << 30, wait=timedelta()).records.to_pylist()
    assert len(rows) == 200
    at = {(row["partition"], row["offset"]): row["value"] for row in rows}
    for number, answer in answers.items():
        mine = {at[p, o] for p, (first, next_) in answer.offsets.items() for o in range(first, next_)}
        assert mine == {b"%d-%d" % (number, each) for each in range(5)}
    opened.close()


def test_the_same_key_appends_once_and_answers_the_same(opened: Opened) -> None:
    first = opened.send(b"1", b"2", key="order-1")
    again = opened.send(b"1", b"2", key="order-1")
    assert (again.to_json(), first.repeated, again.repeated) == (first.to_json(), False, True)
    with pytest.raises(RefusedRequest, match="other records") as refused:
        opened.send(b"1", b"3", key="order-1")
    assert refused.value.status == 422
    assert opened.values() == [b"1", b"2"]
    opened.close()
    opened.open()
    assert opened.send(b"1", b"2", key="order-1").to_json() == first.to_json()
    assert opened.values() == [b"1", b"2"]
    for wrong in ("", "é", "x" * 256, "a\tb"):
        with pytest.raises(RefusedRequest, match="idempotency key"):
            opened.send(b"1", key=wrong)


def test_the_same_key_in_many_requests_at_once_appends_once(opened: Opened) -> None:
    futures = [opened.ingest.submit("events", [b"1"], None, idempotency_key="k") for _ in range(50)]
    assert len({str(future.result(WAIT_S).to_json()) for future in futures}) == 1
    assert opened.values() == [b"1"]


class Dying(BaseException):
    """The process dies here, as far as the one under test can tell."""


@pytest.mark.parametrize("appended", [False, True])
def test_a_crash_on_either_side_of_the_append_makes_no_difference(
    opened: Opened, monkeypatch: pytest.MonkeyPatch, appended: bool
) -> None:
    opened.send(b"before")
    real = opened.log.append

    def die(records: pa.Table) -> Appended:
        if appended:
            real(records)
        raise Dying

    monkeypatch.setattr(opened.log, "append", die)
    with pytest.raises(Dying):
        opened.send(b"1", b"2", key="k")
    monkeypatch.undo()
    opened.close()
    opened.open()
    opened.send(b"somebody else")
    answer = opened.send(b"1", b"2", key="k")
    assert answer.repeated is appended
    assert sorted(opened.values()) == sorted([b"before", b"1", b"2", b"somebody else"])
    assert opened.send(b"1", b"2", key="k").to_json() == answer.to_json()


def test_keys_that_hold_the_mark_between_key_and_number_are_told_apart(
    opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = opened.log.append

    def die(records: pa.Table) -> Appended:
        real(records)
        raise Dying

    opened.send(b"1", key="order#1")
    monkeypatch.setattr(opened.log, "append", die)
    with pytest.raises(Dying):
        opened.send(b"2", key="order")
    monkeypatch.undo()
    opened.send(b"3", key="order#2")
    assert opened.send(b"2", key="order").repeated
    assert opened.values() == [b"1", b"2", b"3"]


def test_what_is_missing_of_a_request_that_arrived_in_part_is_appended(
    opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kafka may take a part of an append before it goes down; the embedded log never does."""
    real = opened.log.append

    def die(records: pa.Table) -> Appended:
        real(records.take([0, 2]))
        raise Dying

    monkeypatch.setattr(opened.log, "append", die)
    with pytest.raises(Dying):
        opened.send(b"0", b"1", b"2", b"3", key="k")
    monkeypatch.undo()
    answer = opened.send(b"0", b"1", b"2", b"3", key="k")
    assert opened.values() == [b"0", b"2", b"1", b"3"]
    assert answer.offsets == {0: (0, 4)}
    rows = opened.log.read({}, rows_max=10, bytes_max=1 << 20, wait=timedelta()).records.to_pylist()
    marks = [row["headers"] for row in rows]
    assert marks == [[{"key": REQUEST_HEADER, "value": b"k#%d" % number}] for number in (0, 2, 1, 3)]


def test_keys_are_forgotten_after_their_time_and_beyond_their_number(tmp_path: Path) -> None:
    keys = AnsweredKeys(tmp_path / "keys.db", kept_us=1000, keys_max=300)
    keys.begin("s", [("old", b"h")], {0: 1}, now_us=1)
    assert keys.find("s", "old", now_us=900) is not None
    assert keys.find("s", "old", now_us=1001) is None
    for number in range(512):
        keys.begin("s", [(f"k{number}", b"h")], {0: 1}, now_us=2000 + number)
    assert keys.find("s", "k511", now_us=2600) is not None
    assert keys.find("s", "k100", now_us=2600) is None
    keys.close()


def test_one_request_that_the_log_refuses_does_not_take_the_others_with_it(
    opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    from headrace.errors import RefusedError

    real, held = opened.log.append, threading.Event()

    def append(records: pa.Table) -> Appended:
        held.wait(WAIT_S)
        if b"bad" in records.column("value").to_pylist():
            raise RefusedError("no")
        return real(records)

    monkeypatch.setattr(opened.log, "append", append)
    futures = [
        opened.ingest.submit("events", [value], None, idempotency_key=None)
        for value in (b"first", b"good", b"bad", b"fine")
    ]
    held.set()
    with pytest.raises(RefusedRequest):
        futures[2].result(WAIT_S)
    for index in (0, 1, 3):
        futures[index].result(WAIT_S)
    assert opened.values() == [b"first", b"good", b"fine"]


def test_a_record_that_the_topic_does_not_take_is_told_apart_from_a_log_that_is_not_ready(
    kafka_broker: str, tmp_path: Path
) -> None:
    answered = AnsweredKeys(tmp_path / "ingest.db", kept_us=HOUR_US, keys_max=10)
    with kafka_topics(kafka_broker, record_bytes_max=5_000) as topics:
        log = open_kafka_log(topics.settings("events", 1), "events")
        ingest = Ingest({"events": log}, answered=answered)
        with pytest.raises(RefusedRequest, match="larger than the log takes") as refused:
            ingest.submit("events", [os.urandom(9_000)], None, idempotency_key=None).result(WAIT_S)
        assert (refused.value.status, refused.value.retry_after) == (413, None)
        ingest.submit("events", [b"small"], None, idempotency_key=None).result(WAIT_S)
        ingest.close()
        log.close()
    answered.close()


def test_a_full_log_and_a_pipeline_that_is_behind_push_back(tmp_path: Path) -> None:
    log = open_embedded_log(tmp_path / "log.db", "events", bytes_max=2000)
    answered = AnsweredKeys(tmp_path / "ingest.db", kept_us=HOUR_US, keys_max=10)
    ingest = Ingest({"events": log}, answered=answered)
    with pytest.raises(RefusedRequest, match="full") as refused:
        ingest.submit("events", [os.urandom(5000)], None, idempotency_key="k").result(WAIT_S)
    assert (refused.value.status, refused.value.retry_after) == (429, 5)
    ingest.close()
    log.append(pa.table({"value": pa.array([b"1"] * 20, pa.binary())}))
    log.publish("engine", {0: 5})
    behind = Ingest({"events": log}, answered=answered, limits=IngestLimits(behind_records_max=14))
    with pytest.raises(RefusedRequest, match="15 records behind") as refused:
        behind.submit("events", [b"2"], None, idempotency_key=None).result(WAIT_S)
    assert (refused.value.status, refused.value.retry_after) == (429, 5)
    behind.close()
    answered.close()
    log.close()


def test_too_much_in_flight_is_refused_until_it_is_answered(tmp_path: Path) -> None:
    opened = Opened(tmp_path, waiting_requests_max=2, waiting_bytes_max=100)
    with opened.ingest.admitted(60):
        for size in (41, 1000):
            with pytest.raises(RefusedRequest) as refused, opened.ingest.admitted(size):
                pass
            assert (refused.value.status, refused.value.retry_after) == (429, 1)
        with opened.ingest.admitted(1), pytest.raises(RefusedRequest), opened.ingest.admitted(1):
            pass
    with opened.ingest.admitted(1000) as alone:  # it would never be taken otherwise
        alone.holds(2000)
        with pytest.raises(RefusedRequest), opened.ingest.admitted(1):
            pass
        alone.holds(50)
        with opened.ingest.admitted(10) as other:
            other.holds(50)
            with pytest.raises(RefusedRequest):
                other.holds(51)
            other.holds(0)
    with opened.ingest.admitted(99), opened.ingest.admitted(1):
        pass
    opened.close()
    with pytest.raises(RefusedRequest, match="stopping"):
        opened.ingest.submit("events", [b"1"], None, idempotency_key=None)
