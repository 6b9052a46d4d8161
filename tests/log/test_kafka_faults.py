"""Brokers that go and come back, retention, topics that are deleted or grow: on a real broker."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from confluent_kafka import KafkaError, KafkaException, TopicCollection
from confluent_kafka.admin import NewPartitions

from headrace.errors import IntegrityError, RefusedError, TransientError
from headrace.log.backoff import Waiting, when_ready
from headrace.log.kafka import KafkaSettings, open_kafka_log
from headrace.log.kafka.connection import callbacks
from log.kafka_streams import (
    NO_WAIT,
    Counted,
    admin,
    cut_to,
    delete_topic,
    make_topic,
    ones,
    opened,
    read_values,
    take,
    topic_name,
    values,
)
from servers.guard import wait_until
from servers.kafka import KafkaBroker, kafka_cluster
from servers.kafka import kafka_broker as a_broker

LITTLE_AT_A_TIME = {
    "queued.min.messages": "1",
    "queued.max.messages.kbytes": "1",
    "fetch.max.bytes": "200000",
    "max.partition.fetch.bytes": "200000",
    "message.max.bytes": "200000",
}
PIPELINE = """
import headrace as hr

pipeline = hr.Pipeline("started")
pipeline.stream("events", schema="n BIGINT NOT NULL")
pipeline.table("total", "SELECT count(*) AS records FROM events")
"""
OFTEN = {"delivery.timeout.ms": "1500", "request.timeout.ms": "1000"}


@pytest.fixture(scope="module")
def broker(kafka_here: None) -> Iterator[KafkaBroker]:
    """A broker that tests of this file may kill; each leaves it running."""
    with a_broker() as running:
        yield running


def grow(brokers: str, topic: str, partitions: int) -> None:
    client = admin(brokers)
    client.create_partitions([NewPartitions(topic, partitions)])[topic].result(20)


# --- a broker that is not there, or not quite


@pytest.mark.slow
def test_a_load_on_a_broker_that_was_just_started_is_seen_by_who_reads(kafka_here: None) -> None:
    with (
        a_broker() as fresh,  # it makes its topic of consumer groups when the first mark is set
        opened(fresh.bootstrap, topic_name(), partitions=1, record_time="header") as log,
        log.load(),
    ):
        assert log._groups.loading()


@pytest.mark.slow
def test_positions_of_readers_are_asked_of_a_broker_that_was_just_started_without_an_error(
    kafka_here: None,
) -> None:
    with (
        a_broker() as fresh,  # it makes its topic of consumer groups when it is first asked for one
        opened(fresh.bootstrap, topic_name(), partitions=1) as log,
    ):
        assert log.readers("engine") == {}


def test_a_client_that_failed_in_a_callback_says_how_kafka_failed() -> None:
    fatal = KafkaException(KafkaError(KafkaError._FENCED))
    with pytest.raises(KafkaException) as raised, callbacks():
        raise SystemError("a call returned a result with an exception set") from fatal
    assert raised.value is fatal
    with pytest.raises(SystemError), callbacks():
        raise SystemError("something else")


@pytest.mark.slow
def test_what_opens_a_log_is_told_soon_that_no_broker_answers_and_waits_for_one(broker: KafkaBroker) -> None:
    settings = KafkaSettings(brokers=broker.bootstrap, topic=topic_name(), partitions=1)
    broker.stop()
    told: list[tuple[float, Waiting | None]] = []
    began = time.monotonic()

    def tell(pause: Waiting | None) -> None:
        if not told:
            broker.start(wait=False)
        told.append((time.monotonic() - began, pause))

    log = when_ready(lambda: open_kafka_log(settings, "events"), threading.Event(), tell)
    assert log is not None
    seconds, first = told[0]
    assert seconds < 10.5
    assert first is not None and f"no answer from {broker.bootstrap}" in str(first)
    assert told[-1][1] is None
    log.append(ones(3))
    assert take(log).records.num_rows == 3
    log.close()


@pytest.mark.slow
def test_a_run_that_is_started_before_its_broker_says_what_it_waits_for_and_begins_alone(
    broker: KafkaBroker, tmp_path: Path
) -> None:
    with opened(broker.bootstrap, topic_name(), partitions=1) as log:
        log.append(ones(5))
        topic = log.settings.topic
    (tmp_path / "pipeline.py").write_text(PIPELINE)
    stream = f'log = "kafka", brokers = "{broker.bootstrap}", topic = "{topic}"'
    (tmp_path / "headrace.toml").write_text(f"[profiles.kafka]\nstreams.events = {{ {stream} }}\n")
    broker.stop()
    command = [sys.executable, "-m", "headrace", "run", "--until-caught-up", "--profile", "kafka"]
    running = subprocess.Popen(
        command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    try:
        assert running.stdout is not None
        first = running.stdout.readline()
        assert first.startswith("waiting: ") and f"no answer from {broker.bootstrap}" in first
        broker.start()
        said, _ = running.communicate(timeout=120)
    finally:
        running.kill()
        running.wait()
        if broker.process is None or not broker.process.running:
            broker.start()
    assert running.returncode == 0, said
    assert "ready again" in said
    assert "caught up: 5 records" in said and "5 accepted" in said and "the ledger balances" in said


@pytest.mark.slow
def test_a_run_goes_on_by_itself_after_its_broker_was_killed(broker: KafkaBroker, tmp_path: Path) -> None:
    with opened(broker.bootstrap, topic_name(), partitions=2) as log, Counted(log, tmp_path) as run:
        log.append(ones(5000))
        run.wait_for(1)
        broker.kill()
        wait_until(lambda: bool(run.waits), what="the run says that it waits")
        broker.start()
        # A client that is not ours may have to try again too.
        when_ready(lambda: log.append(ones(2000)), threading.Event(), lambda pause: None)
        run.wait_for(7000)
        assert run.waits[-1] is None and "no answer from" in str(run.waits[0])
        run.stop()
        assert run.total() == (7000, 7000)
        assert run.ledger().balanced
        assert run.ledger().read("events") == 7000


@pytest.mark.slow
def test_an_append_that_finds_no_broker_says_how_many_records_arrived_and_a_log_closes(
    broker: KafkaBroker,
) -> None:
    topic = topic_name()
    with (
        opened(broker.bootstrap, topic, partitions=1, client=OFTEN) as log,
        opened(broker.bootstrap, topic) as other,
    ):
        other.append(values(b"before"))  # by who has time: a broker that has just come up may need seconds
        assert take(other).next == {0: 1}
        other.publish("engine", {0: 1})
        assert other.readers() == {"engine": {0: 1}}
        broker.kill()
        with pytest.raises(TransientError, match=r"no answer from .* \(0 of 3 records were acknowledged\)"):
            log.append(values(b"never", b"never", b"never"))
        other.publish("engine", {0: 1})
        began = time.monotonic()
        other.close()
        assert time.monotonic() - began < 12
        broker.start()
        when_ready(lambda: log.append(values(b"after")), threading.Event(), lambda pause: None)
        assert read_values(log, 2)[:2] == [b"before", b"after"]


# --- retention


def test_records_that_retention_took_unread_stop_the_reader_and_are_named(kafka_broker: str) -> None:
    topic = topic_name()
    with opened(kafka_broker, topic, partitions=1) as log:
        log.append(ones(100))
        assert take(log, {0: 20}).next == {0: 100}
        cut_to(kafka_broker, topic, 60)
        with pytest.raises(RefusedError, match="records 20 to 59 are gone, retention deleted them"):
            take(log, {0: 20})
        assert take(log, {0: 60}).records.num_rows == 40


def test_retention_that_passes_a_reader_at_work_is_named_too(kafka_broker: str) -> None:
    topic = topic_name()
    with opened(kafka_broker, topic, partitions=1, compression="none") as log:
        log.append(values(*[b"x" * 100_000] * 60))
    with opened(kafka_broker, topic, client=LITTLE_AT_A_TIME) as log:
        given = log.read({}, rows_max=1, bytes_max=1, wait=NO_WAIT)
        position = dict(given.next)
        cut_to(kafka_broker, topic, 60)
        log.append(ones(5))

        def over() -> bool:
            given = take(log, position)
            position.update(given.next)
            return position[0] >= 65

        with pytest.raises(RefusedError, match=r"records \d+ to 59 are gone"):
            wait_until(over, what="the end")


def test_a_run_may_go_on_behind_lost_records_and_counts_them(kafka_broker: str, tmp_path: Path) -> None:
    topic = topic_name()
    with opened(kafka_broker, topic, partitions=1) as log:
        with Counted(log, tmp_path) as run:
            log.append(ones(50))
            run.wait_for(50)
        log.append(ones(50))
        cut_to(kafka_broker, topic, 80)
    with opened(kafka_broker, topic) as log:
        with Counted(log, tmp_path) as run, pytest.raises(RefusedError, match="records 50 to 79 are gone"):
            run.wait_for(20)
        with Counted(log, tmp_path, on_data_loss="continue") as run:
            run.wait_for(20)
            run.stop()
            [main] = [line for line in run.ledger().lanes if line.lane == "main"]
            assert (main.lost, main.gaps, main.end) == (30, 0, 100)
            assert run.ledger().balanced
            assert run.total() == (70, 70)


# --- topics that change


def test_a_topic_that_was_made_again_does_not_fit_the_store_of_the_old_one(
    kafka_broker: str, tmp_path: Path
) -> None:
    topic = topic_name()
    with opened(kafka_broker, topic, partitions=1) as log, Counted(log, tmp_path) as run:
        log.append(ones(5))
        run.wait_for(5)
    delete_topic(kafka_broker, topic)
    with (
        opened(kafka_broker, topic, partitions=1) as again,
        pytest.raises(IntegrityError, match="was filled from another log"),
    ):
        Counted(again, tmp_path)


def test_a_redrive_topic_that_was_made_again_between_two_runs_is_not_read_as_the_old_one(
    kafka_broker: str, tmp_path: Path
) -> None:
    topic = topic_name()
    with opened(kafka_broker, topic, partitions=1) as log, Counted(log, tmp_path) as run:
        log.append(ones(5))
        log.lane("redrive").append(ones(2))
        run.wait_for(7)
    delete_topic(kafka_broker, f"{topic}.redrive")
    with opened(kafka_broker, topic) as log:
        log.lane("redrive").append(ones(6))
        with pytest.raises(IntegrityError, match="another log of stream 'events@redrive'"):
            Counted(log, tmp_path)


def test_a_redrive_topic_that_was_never_read_may_be_deleted(kafka_broker: str, tmp_path: Path) -> None:
    topic = topic_name()
    with opened(kafka_broker, topic, partitions=1) as log, Counted(log, tmp_path) as run:
        log.append(ones(5))
        run.wait_for(5)
    delete_topic(kafka_broker, f"{topic}.redrive")
    with opened(kafka_broker, topic) as log, Counted(log, tmp_path) as run:
        log.lane("redrive").append(ones(2))
        run.wait_for(2)
        run.stop()
        assert run.total() == (7, 7)


@pytest.mark.parametrize("records_after", [3, 500])
def test_a_run_stops_when_its_topic_is_deleted_and_made_again(
    kafka_broker: str, tmp_path: Path, records_after: int
) -> None:
    topic = topic_name()
    with opened(kafka_broker, topic, partitions=1) as log, Counted(log, tmp_path) as run:
        log.append(ones(100))
        run.wait_for(100)
        delete_topic(kafka_broker, topic)
        make_topic(kafka_broker, topic)
        with opened(kafka_broker, topic) as another:
            another.append(values(*[b'{"n": 1000}'] * records_after))
        failure = run.wait_for_failure()
        assert isinstance(failure, IntegrityError)
        run.stop()
        assert run.total() == (100, 100)
        assert run.ledger().balanced


def test_no_record_of_a_topic_that_was_made_again_is_read_as_if_it_were_the_old_one(
    kafka_broker: str,
) -> None:
    topic = topic_name()
    with opened(kafka_broker, topic, partitions=1) as log:
        log.append(values(*[b"old"] * 100))
        positions = dict(take(log, wait=timedelta(seconds=20)).next)
        assert positions[0] > 0
        delete_topic(kafka_broker, topic)
        make_topic(kafka_broker, topic)
        with opened(kafka_broker, topic) as another:
            another.append(values(*[b"new"] * 500))

        def over() -> bool:
            given = take(log, positions)
            positions.update(given.next)
            assert b"new" not in given.records.column("value").to_pylist()
            return positions[0] >= 500

        with pytest.raises(IntegrityError, match="the topic was deleted and made again"):
            wait_until(over, what="the end")


def test_a_reader_is_told_that_its_topic_was_deleted(kafka_broker: str) -> None:
    topic = topic_name()
    with opened(kafka_broker, topic, partitions=1, look_every=NO_WAIT) as log:
        log.append(ones(5))
        given = take(log)
        delete_topic(kafka_broker, topic)
        with pytest.raises(IntegrityError, match="the topic was deleted"):
            take(log, dict(given.next))
        with pytest.raises(IntegrityError, match="the topic was deleted"):
            log.partitions()


def test_a_partition_that_is_added_is_read_from_its_start_by_a_run_at_work(
    kafka_broker: str, tmp_path: Path
) -> None:
    topic = topic_name()
    with opened(kafka_broker, topic, partitions=1, look_every=NO_WAIT) as log, Counted(log, tmp_path) as run:
        log.append(ones(10))
        run.wait_for(10)
        grow(kafka_broker, topic, 3)
        with opened(kafka_broker, topic, partitions=3) as other:
            other.append(ones(30, partition=[0, 1, 2] * 10))
        run.wait_for(40)
        run.stop()
        ends = {line.partition: line.end for line in run.ledger().lanes if line.lane == "main"}
        assert ends == {0: 20, 1: 10, 2: 10}
        assert run.ledger().balanced
        assert run.total() == (40, 40)


def test_a_log_whose_partitions_are_fewer_than_asked_for_grows(kafka_broker: str) -> None:
    topic = topic_name()
    with opened(kafka_broker, topic, partitions=1) as log:
        log.append(ones(4))
    with opened(kafka_broker, topic, partitions=3) as log:
        assert [(held.partition, held.end) for held in log.partitions()] == [(0, 4), (1, 0), (2, 0)]
        log.append(ones(3, partition=[0, 1, 2]))
        assert take(log).records.num_rows == 7


@pytest.mark.soak
@pytest.mark.timeout(300)
def test_a_question_about_a_topic_is_answered_by_the_successor_of_a_leader_that_died(
    kafka_here: None,
) -> None:
    with kafka_cluster(3, properties={"min.insync.replicas": "2"}) as cluster:
        client = admin(cluster.bootstrap)
        with opened(cluster.bootstrap, "events", partitions=2, replication=3) as log:
            log.append(values(b"a", b"b", b"c"))
            before = log.partitions()
            described = client.describe_topics(TopicCollection(["events"]))["events"].result(20)
            cluster.brokers[described.partitions[0].leader.id - 1].kill()
            assert log.partitions() == before
