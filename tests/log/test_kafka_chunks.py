"""Headers that anybody may write: a record time that is none changes nothing, and stops nobody."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime, timedelta

import pytest
from confluent_kafka import Producer

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
