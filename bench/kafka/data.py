"""The bytes that every contestant reads: commerce events, once as an Arrow file and once in a Kafka topic.

The record time of a record is the timestamp that its Kafka record carries (the topic is of type CreateTime),
in milliseconds, so that outcomes follow from the bytes alone and a late record is late for every contestant.
There are no malformed records, so that no peer needs a defence against them; late, future, repeated and
conflicting ones are. The stream ends with one record that comes an hour after the others: it lets windows
and sessions close for the engines that only then tell of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from headrace.blueprints.commerce.generator import CommerceGenerator
from headrace.log.headers import RECORD_TIME_HEADER

PARTITIONS = 2
COMPRESSION = "lz4"
RATE = 1000.0  # events per second of event time
TAIL = timedelta(hours=1)
_PIECE = 50_000
_SCHEMA = pa.schema(
    [("record_time", pa.timestamp("us", "UTC")), ("key", pa.binary()), ("value", pa.binary())]
)


@dataclass(frozen=True)
class Stream:
    """A topic: its name, where its bytes lie, how many records each partition has."""

    topic: str
    file: Path
    events: int
    ends: dict[int, int]

    @property
    def given(self) -> dict[str, Any]:
        """What a contestant is told of it."""
        return {"topic": self.topic, "events": self.events, "ends": self.ends}


def generate(
    file: Path, events: int, *, seed: int = 1, start: datetime | None = None, unit: str = "millisecond"
) -> pa.Table:
    """Write `events` records and the last one to `file`, and return them, mapped.

    Without `start` the last record lies a minute ago, so that nothing is older than what tables keep.
    Record times are whole ones of `unit`: with "second" there are always as many at once as `RATE` says.
    """
    span = timedelta(seconds=events / RATE) + TAIL
    start = start or (datetime.now(UTC) - span - timedelta(minutes=1)).replace(second=0, microsecond=0)
    generator = CommerceGenerator(seed=seed, user_skew=0.5, malformed_share=0.0)
    file.parent.mkdir(parents=True, exist_ok=True)
    with pa.ipc.new_file(str(file), _SCHEMA) as writer:
        for done in range(0, events, _PIECE):
            at = start + timedelta(seconds=done / RATE)
            writer.write_table(_floored(generator.batch(at, min(_PIECE, events - done), rate=RATE), unit))
        writer.write_table(_last(start + span))
    return mapped(file)


def mapped(file: Path) -> pa.Table:
    """Return the records of a file: mapped, so that they come from the page cache."""
    return pa.ipc.open_file(pa.memory_map(str(file))).read_all()


def _floored(table: pa.Table, unit: str) -> pa.Table:
    times = pc.floor_temporal(table["record_time"], unit=unit)
    return pa.table([times, table["key"], table["value"]], schema=_SCHEMA).combine_chunks()


def _last(at: datetime) -> pa.Table:
    value = (
        '{"event_type":"search","event_id":"00000000-0000-0000-0000-000000000000","user_id":"user_last",'
        f'"session_id":"00000000","location":"DE","timestamp":"{at:%Y-%m-%dT%H:%M:%S}.000Z",'
        '"device":"desktop","query":"the end","results":0}'
    )
    return pa.table([[at], [b"user_last"], [value.encode()]], schema=_SCHEMA)


def create_topic(brokers: str, topic: str, **settings: str) -> None:
    """Create a topic of two partitions that keeps its records, with the producers' timestamps."""
    from confluent_kafka.admin import AdminClient, NewTopic

    config = {"message.timestamp.type": "CreateTime", "retention.ms": "-1", **settings}
    admin = AdminClient({"bootstrap.servers": brokers})
    made = admin.create_topics([NewTopic(topic, PARTITIONS, 1, config=config)])
    made[topic].result(30)


def produce(brokers: str, topic: str, file: Path, *, headers: bool = False) -> Stream:
    """Create `topic` and write the records of `file` to it, by key and in order.

    With `headers` their record times stand in headers, too: Headrace on Spark believes no producer's clock.
    """
    from confluent_kafka import Consumer, Producer, TopicPartition

    create_topic(brokers, topic)
    producer = Producer(producer_settings(brokers))
    table, failed = mapped(file), []
    for batch in table.to_batches(max_chunksize=_PIECE):
        times = batch["record_time"].cast(pa.int64()).to_pylist()
        for at, key, value in zip(times, batch["key"].to_pylist(), batch["value"].to_pylist(), strict=True):
            while True:
                try:
                    given = [(RECORD_TIME_HEADER, b"%d" % at)] if headers else None
                    producer.produce(topic, value, key, timestamp=at // 1000, headers=given)
                    break
                except BufferError:
                    producer.poll(0.05)
        producer.poll(0)
    if producer.flush(60) or failed:
        raise RuntimeError(f"not every record reached {topic}")
    asked = Consumer({"bootstrap.servers": brokers, "group.id": "ends"})
    ends = {
        each: asked.get_watermark_offsets(TopicPartition(topic, each), timeout=10)[1]
        for each in range(PARTITIONS)
    }
    asked.close()
    if sum(ends.values()) != table.num_rows:
        raise RuntimeError(f"{topic} holds {sum(ends.values())} records instead of {table.num_rows}")
    return Stream(topic, file, table.num_rows, ends)


def producer_settings(brokers: str) -> dict[str, Any]:
    """Return how the benchmarks produce: as commerce asks (all acknowledge, idempotent), in large batches."""
    return {
        "bootstrap.servers": brokers,
        "acks": "all",
        "enable.idempotence": True,
        "compression.type": COMPRESSION,
        "linger.ms": 5,
        "batch.size": 1_000_000,
        "queue.buffering.max.messages": 1_000_000,
    }
