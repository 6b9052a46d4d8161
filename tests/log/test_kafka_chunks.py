"""Headers that anybody may write: a record time that is none changes nothing, and stops nobody."""

from __future__ import annotations

import uuid
from contextlib import closing
from datetime import UTC, datetime, timedelta

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic
from raw_produce import produce_raw

from headrace.log.kafka import KafkaSettings, open_kafka_log

NOISE = [b"", b"x", b"--5", b"1.5", b"9" * 30, b"9" * 18, b"-" + b"9" * 18, "\u0661".encode(), None]


@pytest.mark.parametrize("first", [True, False])
def test_a_record_time_header_that_is_no_instant_is_a_header_like_any_other(
    kafka_broker: str, first: bool
) -> None:
    topic = f"noise-{uuid.uuid4().hex[:10]}"
    settings = KafkaSettings(brokers=kafka_broker, topic=topic, partitions=1, record_time="header")
    log = open_kafka_log(settings, "events")
    began = datetime.now(UTC) - timedelta(minutes=1)
    producer = Producer({"bootstrap.servers": kafka_broker, "log_level": 0})
    right = ("headrace.record-time", b"1700000000000000")
    for noise in NOISE:
        producer.produce(topic, b"v", headers=[("headrace.record-time", noise)])
    other = [("a", b"1"), right] if first else [right, ("a", b"1")]
    producer.produce(topic, b"v", headers=other)
    assert producer.flush(30) == 0
    found = log.read({0: 0}, rows_max=100, bytes_max=1 << 20, wait=timedelta(seconds=10)).records
    rows = found.sort_by("offset").to_pylist()
    log.close()
    assert [row["headers"][0]["value"] for row in rows[:-1]] == NOISE
    assert all(row["record_time"] > began for row in rows[:-1])
    assert rows[-1]["record_time"] == datetime.fromtimestamp(1_700_000_000, UTC)
    assert rows[-1]["headers"] == [{"key": "a", "value": b"1"}]


@pytest.fixture
def lenient(kafka_broker: str) -> str:
    """A topic that takes what a sender gives: its times and its bytes."""
    topic = f"lenient-{uuid.uuid4().hex[:10]}"
    config = {
        "message.timestamp.type": "CreateTime",
        "message.timestamp.after.max.ms": str(2**63 - 1),
        "compression.type": "producer",
    }
    admin = AdminClient({"bootstrap.servers": kafka_broker})
    admin.create_topics([NewTopic(topic, 1, 1, config=config)])[topic].result(60)
    return topic


def test_what_a_stranger_wrote_into_a_topic_of_his_own_stops_nobody(kafka_broker: str, lenient: str) -> None:
    producer = Producer({"bootstrap.servers": kafka_broker, "log_level": 0})
    micros = 1_800_000_000_000_000
    producer.produce(lenient, b"first", headers=[("a", b"1")])
    assert producer.flush(30) == 0
    produce_raw(kafka_broker, lenient, b"no UTF-8", (b"na\xefve", b"v"))
    producer.produce(lenient, b"a time in microseconds", timestamp=micros)
    producer.produce(lenient, b"in nanoseconds", timestamp=micros * 1000)
    assert producer.flush(30) == 0
    settings = KafkaSettings(brokers=kafka_broker, topic=lenient, partitions=1, record_time="header")
    with closing(open_kafka_log(settings, "events")) as log:
        found = log.read({0: 0}, rows_max=100, bytes_max=1 << 20, wait=timedelta(seconds=10)).records
    rows = found.sort_by("offset").to_pylist()
    assert [row["value"] for row in rows] == [
        b"first",
        b"no UTF-8",
        b"a time in microseconds",
        b"in nanoseconds",
    ]
    assert [row["headers"] for row in rows] == [[{"key": "a", "value": b"1"}], None, None, None]
    assert [row["record_time"].year for row in rows[2:]] == [9999, 9999]
