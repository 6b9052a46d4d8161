"""Copying, looking, ingest and dead letters on a real broker."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pyarrow as pa
import pytest
from confluent_kafka import Consumer, KafkaException, TopicCollection, TopicPartition

from headrace.log import APPEND_SCHEMA, Appended, Log, open_embedded_log
from headrace.log.answered import AnsweredKeys
from headrace.log.between import read_between
from headrace.log.headers import COPIED_HEADER, RECORD_TIME_HEADER
from headrace.log.kafka import KafkaLog
from headrace.operate import load_project, log_copy, open_log
from headrace.operate.dead_letter_topics import open_letters_topic
from headrace.operate.log_copy import copy_log, copy_redrive_lane
from headrace.operate.log_tools import From, describe_log, peek
from headrace.produce.ingest import Ingest, IngestAnswer, IngestLimits
from headrace.produce.ingest_body import RefusedRequest
from headrace.web.ingest import ingest_app
from headrace.web.serving import bound_socket, serving
from log.kafka_streams import admin
from servers.guard import wait_until
from servers.kafka import kafka_broker as a_broker
from servers.kafka import kafka_cluster

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
OWN = (COPIED_HEADER, RECORD_TIME_HEADER)
OpenTopic = Callable[..., Log]


@pytest.fixture
def open_topic(kafka_broker: str) -> Iterator[OpenTopic]:
    from headrace.log.kafka import KafkaSettings, open_kafka_log

    test = uuid.uuid4().hex[:10]
    with ExitStack() as undo:

        def opened(name: str = "events", *, partitions: int = 3, record_time: str = "header") -> Log:
            settings = KafkaSettings(
                brokers=kafka_broker, topic=f"{name}-{test}", partitions=partitions, record_time=record_time
            )
            log = open_kafka_log(settings, name)
            undo.callback(log.close)
            return log

        yield opened


def contents(log: Log) -> dict[int, list[tuple[Any, ...]]]:
    found: dict[int, list[tuple[Any, ...]]] = {}
    for held in log.partitions():
        parts = list(read_between(log, {held.partition: held.start}, {held.partition: held.end}))
        rows = sorted((row for part in parts for row in part.to_pylist()), key=lambda row: row["offset"])
        found[held.partition] = [
            (
                row["record_time"], row["key"], row["value"],
                [(h["key"], h["value"]) for h in row["headers"] or () if h["key"] not in OWN],
            )
            for row in rows
        ]  # fmt: skip
    return found


def fill(log: Log, records: int, seed: int = 0) -> None:
    chance = random.Random(seed)
    rows = [
        {
            "partition": chance.randrange(3),
            "record_time": NOON + timedelta(microseconds=chance.randrange(10**9)),
            "key": None if number % 5 == 0 else b"k%d" % (number % 7),
            "value": None if number % 11 == 0 else b'{"n": %d}' % number,
            "headers": [{"key": "trace", "value": b"%d" % number}] if number % 3 == 0 else None,
        }
        for number in range(records)
    ]
    with log.load():
        log.append(pa.Table.from_pylist(rows, schema=APPEND_SCHEMA))


def test_a_stream_is_copied_to_kafka_and_back_as_it_was(open_topic: OpenTopic, tmp_path: Path) -> None:
    source = open_embedded_log(tmp_path / "a.db", "events", partitions=3)
    back = open_embedded_log(tmp_path / "b.db", "events", partitions=3)
    fill(source, 3000)
    topic, stop = open_topic(), threading.Event()
    assert copy_log(source, topic, stop=stop).copied == 3000
    assert contents(topic) == contents(source)
    assert copy_log(topic, back, stop=stop).copied == 3000
    assert contents(back) == contents(source)
    assert copy_log(source, topic, stop=stop).copied == 0
    address = [{"key": "headrace.address", "value": b"1:0"}]
    lane = pa.table({"value": pa.array([b"corrected"], pa.binary())})
    headers = pa.array([address], APPEND_SCHEMA.field("headers").type)
    source.lane("redrive").append(lane.append_column("headers", headers))
    assert copy_redrive_lane(source, topic, stop=stop).copied == 1
    [[redriven]] = contents(topic.lane("redrive")).values()
    assert redriven[2:] == (b"corrected", [("headrace.address", b"1:0")])
    source.close()
    back.close()


CHILD = """
import sys, threading
from pathlib import Path
from headrace.log import open_embedded_log
from headrace.log.kafka import KafkaSettings, open_kafka_log
from headrace.operate import log_copy
log_copy._ROWS = 500
source = open_embedded_log(Path(sys.argv[1]), "events")
settings = KafkaSettings(brokers=sys.argv[2], topic=sys.argv[3], partitions=3, record_time="header")
target = open_kafka_log(settings, "events")
told = lambda progress: print(progress.records, flush=True)
log_copy.copy_log(source, target, stop=threading.Event(), on_progress=told)
print("complete", flush=True)
"""


@pytest.mark.slow
def test_a_copy_that_is_killed_again_and_again_loses_nothing_and_copies_nothing_twice(
    kafka_broker: str, tmp_path: Path
) -> None:
    from headrace.log.kafka import KafkaSettings, open_kafka_log

    source = open_embedded_log(tmp_path / "a.db", "events", partitions=3)
    fill(source, 20_000)
    name, chance = f"copied-{uuid.uuid4().hex[:10]}", random.Random(7)
    kills = 0
    for attempt in range(12):
        child = subprocess.Popen(
            [sys.executable, "-c", CHILD, str(tmp_path / "a.db"), kafka_broker, name],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert child.stdout is not None
        steps = chance.randrange(2, 8) if attempt < 4 else 10**6
        last = ""
        for line in child.stdout:
            last, steps = line, steps - 1
            if steps == 0:
                os.kill(child.pid, signal.SIGKILL)
        child.stdout.close()
        if child.wait(60) == -signal.SIGKILL:
            kills += 1
        else:
            assert last == "complete\n"
            break
    assert kills >= 3
    settings = KafkaSettings(brokers=kafka_broker, topic=name, partitions=3, record_time="header")
    topic = open_kafka_log(settings, "events")
    assert contents(topic) == contents(source)
    topic.close()
    source.close()


def test_a_topic_is_described_and_looked_at(open_topic: OpenTopic) -> None:
    topic = open_topic(partitions=2, record_time="log")
    rows = [
        {**dict.fromkeys(APPEND_SCHEMA.names), "partition": n % 2, "value": b'{"n": %d}' % n}
        for n in range(20)
    ]
    topic.append(pa.Table.from_pylist(rows, schema=APPEND_SCHEMA))
    topic.publish("engine", {0: 4, 1: 10})
    document = describe_log(topic)
    assert (document["records"], document["bytes_estimated"]) == (20, True)
    assert document["bytes"] == sum(len(b'{"n": %d}' % n) for n in range(20))
    [engine] = [each for each in document["readers"] if each["reader"] == "engine"]
    assert [p["lag_records"] for p in engine["partitions"]] == [6, 0]
    assert sorted(each.parsed["n"] for each in peek(topic, From(last=20))) == list(range(20))
    assert [each.parsed["n"] for each in peek(topic, From(offset=(1, 8)))] == [17, 19]
    assert len(list(peek(topic, From(last=3)))) == 3
    assert topic.readers()["engine"] == {0: 4, 1: 10}


def test_readers_that_are_not_ours_are_described_with_their_lag(
    open_topic: OpenTopic, kafka_broker: str
) -> None:
    topic = open_topic(partitions=2, record_time="log")
    rows = [{**dict.fromkeys(APPEND_SCHEMA.names), "partition": n % 2, "value": b"%d" % n} for n in range(20)]
    topic.append(pa.Table.from_pylist(rows, schema=APPEND_SCHEMA))
    topic.publish("engine", {0: 10, 1: 10})
    assert isinstance(topic, KafkaLog)
    group, place = f"reports-{uuid.uuid4().hex[:10]}", TopicPartition(topic.settings.topic, 0, 4)
    somebody = Consumer({"bootstrap.servers": kafka_broker, "group.id": group, "log_level": 0})
    try:
        wait_until(lambda: commits(somebody, place), what="the other reader commits")
    finally:
        somebody.close()
    readers = {each["reader"]: each for each in describe_log(topic)["readers"]}
    assert {name: each["lag_records"] for name, each in readers.items()} == {"engine": 0, group: 16}
    assert [(p["position"], p["lag_records"]) for p in readers[group]["partitions"]] == [(4, 6), (None, 10)]


def commits(consumer: Consumer, place: TopicPartition) -> bool:
    """Commit a position; False while a broker that was just started makes its topic of groups."""
    try:
        consumer.commit(offsets=[place], asynchronous=False)
    except KafkaException:
        return False
    return True


def test_a_look_that_follows_a_topic_gives_what_arrives(open_topic: OpenTopic) -> None:
    topic = open_topic(partitions=1, record_time="log")
    found: list[int] = []

    def append(number: int) -> None:
        topic.append(pa.table({"value": pa.array([b'{"n": %d}' % number], pa.binary())}))

    def look() -> None:
        for each in peek(topic, From(last=1), follow=True, records_max=3):
            found.append(each.parsed["n"])
            append(each.parsed["n"] + 1)

    append(7)
    looking = threading.Thread(target=look, daemon=True)
    looking.start()
    looking.join(60)
    assert found == [7, 8, 9]


def test_requests_are_appended_to_kafka_once(
    open_topic: OpenTopic, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    topic = open_topic(record_time="log")
    keys = AnsweredKeys(tmp_path / "ingest.db", kept_us=3_600_000_000, keys_max=100)
    ingest = Ingest({"events": topic}, answered=keys)
    real = topic.append

    def die(records: pa.Table) -> Appended:
        real(records.slice(0, 2))
        raise MemoryError

    monkeypatch.setattr(topic, "append", die)
    sent = ingest.submit("events", [b"1", b"2", b"3"], None, idempotency_key="k")
    with pytest.raises(MemoryError):
        sent.result(60)
    monkeypatch.undo()
    answers = [
        ingest.submit("events", [b"1", b"2", b"3"], None, idempotency_key="k").result(60) for _ in range(2)
    ]
    assert answers[0].to_json() == answers[1].to_json()
    assert sorted(row[2] for rows in contents(topic).values() for row in rows) == [b"1", b"2", b"3"]
    ingest.close()
    keys.close()


def test_requests_over_http_are_on_the_brokers_when_they_are_answered(
    open_topic: OpenTopic, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("headrace.produce.ingest_writer._ASKED_EVERY_S", 0.0)
    topic, token = open_topic(partitions=1, record_time="log"), "a token for tests"
    with ExitStack() as undo:
        keys = AnsweredKeys(tmp_path / "ingest.db", kept_us=3_600_000_000, keys_max=100)
        undo.callback(keys.close)
        limits = IngestLimits(body_bytes_max=1000, behind_records_max=3)
        ingest = Ingest({"events": topic}, answered=keys, limits=limits)
        undo.callback(ingest.close)
        app = ingest_app(ingest, key_fields={"events": "user"}, token=token, tell=lambda told: None)
        listening = bound_socket("127.0.0.1", 0)
        undo.enter_context(serving(app, listening))
        http = undo.enter_context(httpx.Client(base_url=f"http://127.0.0.1:{listening.getsockname()[1]}"))

        def post(body: bytes, kind: str = "application/json", **headers: str) -> httpx.Response:
            sent = {"Authorization": f"Bearer {token}", "Content-Type": kind, **headers}
            return http.post("/streams/events/records", content=body, headers=sent, timeout=60)

        assert post(b"[{}]", Authorization="Bearer wrong").status_code == 401
        assert post(b'["%s"]' % (b"x" * 1000)).status_code == 413
        first = post(b'[{"user": "a"}, {"user": "b"}]', **{"Idempotency-Key": "one"})
        assert first.json()["partitions"] == [{"partition": 0, "first": 0, "next": 2}]
        assert post(b'[{"user": "a"}, {"user": "b"}]', **{"Idempotency-Key": "one"}).json() == first.json()
        assert post(b'{"user": "c"}\n{"user": "d"}\n', "application/x-ndjson").json()["records"] == 2
        [rows] = contents(topic).values()
        assert [(row[1], row[2]) for row in rows] == [(b"%c" % n, b'{"user": "%c"}' % n) for n in b"abcd"]
        assert post(b'{"user": "e"}').status_code == 429  # nobody has read the four
        topic.publish("engine", {0: 4})
        assert post(b'{"user": "e"}').status_code == 200


@pytest.mark.slow
def test_topics_beside_a_stream_have_its_replication_and_not_the_brokers_default(
    kafka_here: None, tmp_path: Path
) -> None:
    from headrace.log.kafka import KafkaSettings, open_kafka_log

    # One broker that makes no topic by its default: it asks for more copies than there are brokers.
    with a_broker({"default.replication.factor": "3"}) as broker:
        events = open_kafka_log(
            KafkaSettings(brokers=broker.bootstrap, topic="made-by-hand", partitions=1, replication=1),
            "events",
        )
        events.close()
        (tmp_path / "pipeline.py").write_text(
            'import headrace as hr\n\npipeline = hr.Pipeline("beside")\n'
            'pipeline.stream("events", schema="n BIGINT")\n'
        )
        (tmp_path / "headrace.toml").write_text(
            "[profiles.kafka]\n"
            f'streams.events = {{ log = "kafka", brokers = "{broker.bootstrap}", topic = "made-by-hand", '
            'dead_letter_topic = "letters" }\n'
        )
        project = load_project(tmp_path, profile="kafka")
        letters = open_letters_topic(project, "letters", None)
        assert [each.partition for each in letters.partitions()] == [0]
        letters.close()
        log = open_log(project, "events")
        assert [each.end for each in log.lane("redrive").partitions()] == [0]
        log.close()


@pytest.mark.soak
def test_a_request_that_the_leader_has_and_tells_nobody_of_yet_is_not_appended_twice(
    kafka_here: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from headrace.log.kafka import KafkaSettings, open_kafka_log
    from headrace.log.kafka import log as kafka_log

    monkeypatch.setattr(kafka_log, "REPLICAS_BEHIND", timedelta(seconds=3))
    monkeypatch.setattr("headrace.produce.ingest_writer._ASKED_EVERY_S", 600.0)
    often = {"delivery.timeout.ms": "1500", "request.timeout.ms": "1000"}
    # A follower that is given up is waited for no more: the leader would tell of the record by itself.
    patient = {"broker.session.timeout.ms": "60000"}
    with ExitStack() as undo:
        cluster = undo.enter_context(kafka_cluster(3, properties=patient))
        client = admin(cluster.bootstrap)
        log = open_kafka_log(
            KafkaSettings(
                brokers=cluster.bootstrap, topic="events", partitions=1, replication=3, client=often
            ),
            "events",
        )
        undo.callback(log.close)
        keys = AnsweredKeys(tmp_path / "ingest.db", kept_us=3_600_000_000, keys_max=100)
        undo.callback(keys.close)
        ingest = Ingest({"events": log}, answered=keys)
        undo.callback(ingest.close)

        def send(key: str) -> IngestAnswer:
            return ingest.submit("events", [b"1"], None, idempotency_key=key).result(60)

        send("before")
        described = client.describe_topics(TopicCollection(["events"]))["events"].result(20)
        leader = described.partitions[0].leader.id
        follower = next(each for node, each in enumerate(cluster.brokers, 1) if node != leader)
        assert follower.process is not None
        os.kill(follower.process.pid, signal.SIGSTOP)
        try:
            for _ in range(3):  # written by the leader, told by nobody: a follower in sync does not have it
                with pytest.raises(RefusedRequest) as refused:
                    send("k")
                assert (refused.value.status, refused.value.retry_after is not None) == (503, True)
        finally:
            os.kill(follower.process.pid, signal.SIGCONT)
        answers: list[IngestAnswer] = []

        def answered() -> bool:
            try:
                answers.append(send("k"))
            except RefusedRequest as error:
                assert error.status == 503
            return bool(answers)

        wait_until(answered, what="the request is answered", seconds=60)
        assert answers[0].repeated
        assert [each.end for each in log.partitions()] == [2]


def test_a_copy_waits_for_a_broker_that_was_killed(
    kafka_here: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from headrace.log.kafka import KafkaSettings, open_kafka_log
    from servers.kafka import kafka_broker as own_broker

    source = open_embedded_log(tmp_path / "a.db", "events", partitions=3)
    fill(source, 2000)
    monkeypatch.setattr(log_copy, "_ROWS", 200)
    with own_broker() as broker:
        settings = KafkaSettings(
            brokers=broker.bootstrap,
            topic="copied",
            partitions=3,
            record_time="header",
            client={"delivery.timeout.ms": "3000", "request.timeout.ms": "1000"},
        )
        topic = open_kafka_log(settings, "events")
        killed, waits = threading.Event(), []

        def on_progress(done: log_copy.CopyProgress) -> None:
            if done.records > 800 and not killed.is_set():
                killed.set()
                broker.kill()

        def tell(waiting: Any) -> None:
            waits.append(waiting)
            if len(waits) == 1:
                broker.start()

        report = copy_log(source, topic, stop=threading.Event(), on_progress=on_progress, tell=tell)
        assert report.complete
        assert waits
        assert waits[-1] is None
        assert contents(topic) == contents(source)
        topic.close()
    source.close()
