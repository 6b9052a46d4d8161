"""Partitions of which much is held are not fetched for a while, and nothing of them is missed after that."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pytest
from confluent_kafka import Consumer, Message, Producer

from headrace.log.kafka import KafkaLog, KafkaSettings, fetching, open_kafka_log

NO_WAIT = timedelta(0)
RECORDS = 600


@pytest.fixture
def log(kafka_broker: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[KafkaLog]:
    """A topic whose partition 1 lies an hour behind partition 0, read by a log that holds 100 records."""
    monkeypatch.setattr(fetching, "_HELD_ROWS_MAX", 100)
    monkeypatch.setattr(fetching, "_CHUNK", 20)
    topic = f"held-{uuid.uuid4().hex[:10]}"
    settings = KafkaSettings(brokers=kafka_broker, topic=topic, partitions=2, record_time="header")
    opened = open_kafka_log(settings, "events")
    noon = datetime(2026, 3, 1, 12, tzinfo=UTC)
    for partition in (0, 1):
        times = [noon + timedelta(hours=1 - partition, seconds=at) for at in range(RECORDS)]
        opened.append(
            pa.table(
                {
                    "partition": pa.array([partition] * RECORDS, pa.int32()),
                    "record_time": pa.array(times, pa.timestamp("us", "UTC")),
                    "value": pa.array([b"%d-%d" % (partition, at) for at in range(RECORDS)], pa.binary()),
                }
            )
        )
    yield opened
    opened.close()


def read_all(log: KafkaLog, positions: dict[int, int]) -> list[bytes]:
    values: list[bytes] = []
    while True:
        given = log.read(positions, rows_max=150, bytes_max=1 << 20, wait=NO_WAIT)
        if not given.records.num_rows:
            return values
        values += given.records.column("value").to_pylist()
        positions = dict(given.next)


def test_a_partition_that_was_held_back_is_read_to_its_end(log: KafkaLog) -> None:
    values = read_all(log, {})
    assert sorted(values) == sorted(b"%d-%d" % (p, at) for p in (0, 1) for at in range(RECORDS))
    assert values.index(b"0-0") > values.index(b"1-599") - RECORDS


def test_a_partition_that_was_held_back_is_read_from_another_position_too(log: KafkaLog) -> None:
    log.read({}, rows_max=10, bytes_max=1 << 20, wait=NO_WAIT)
    assert len(read_all(log, {0: 0, 1: 0})) == 2 * RECORDS
    log.read({0: 0, 1: 0}, rows_max=10, bytes_max=1 << 20, wait=NO_WAIT)
    assert len(read_all(log, {0: 300, 1: 599})) == 301


class MeetsTheNext(Consumer):
    """Asks as often as records are sent, as a reader does that is as fast as they are."""

    def consume(self, count: int = 1, timeout: float = -1) -> list[Message]:
        return super().consume(count, timeout) or super().consume(1, 1.0)


def test_a_read_ends_while_records_keep_coming(kafka_broker: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetching, "Consumer", MeetsTheNext)
    topic = f"coming-{uuid.uuid4().hex[:10]}"
    log = open_kafka_log(KafkaSettings(brokers=kafka_broker, topic=topic, partitions=1), "events")
    begun, stop = threading.Event(), threading.Event()

    def send() -> None:
        producer = Producer({"bootstrap.servers": kafka_broker, "linger.ms": 1})
        for at in range(20_000):
            if stop.wait(0.0005):
                break
            for n in range(5):
                producer.produce(topic, b"%d-%d" % (at, n))
            producer.poll(0)
            if at == 200:
                begun.set()
        producer.flush(30)

    with closing(log):
        sender = threading.Thread(target=send)
        sender.start()
        try:
            assert begun.wait(60)
            given = log.read({}, rows_max=1_000_000, bytes_max=1 << 30, wait=timedelta(seconds=30))
            assert given.records.num_rows > 0
            assert sender.is_alive()
        finally:
            stop.set()
            sender.join()
