"""Framed records on a real broker: ours, and those of a Kafka client that serializes for itself."""

from __future__ import annotations

import json
import uuid
import warnings
from contextlib import closing
from pathlib import Path

import pytest
from registry_support import RunningRegistry, field, record_schema

from headrace.declare import Pipeline
from headrace.engine.local import LocalEngine
from headrace.log.kafka import KafkaSettings, open_kafka_log
from headrace.log.registry.client import RegistryClient
from headrace.log.registry.framing import RegistryFraming, StreamFormat
from headrace.produce.encoding import EncodedLog, Encoder, prepare
from headrace.sql import plan_pipeline
from headrace.store import Store
from headrace.testing.records import append_table

pytestmark = pytest.mark.server

ORDER = record_schema(
    field("id", "string"), field("n", "int"), field("device", "string", default=""), name="events"
)


def send_with_their_serializer(brokers: str, topic: str, registry: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from confluent_kafka import Producer
        from confluent_kafka.schema_registry import SchemaRegistryClient, header_schema_id_serializer
        from confluent_kafka.schema_registry.avro import AvroSerializer
        from confluent_kafka.serialization import MessageField, SerializationContext
    producer = Producer({"bootstrap.servers": brokers})
    with SchemaRegistryClient({"url": registry}) as client:
        for conf in ({}, {"schema.id.serializer": header_schema_id_serializer}):
            write = AvroSerializer(client, json.dumps(ORDER), conf=conf)
            headers: list[tuple[str, bytes]] = []
            context = SerializationContext(topic, MessageField.VALUE, headers)
            value = write({"id": f"theirs{len(conf)}", "n": 10, "device": "m"}, context)
            producer.produce(topic, value, headers=context.headers or headers)
    assert producer.flush(30) == 0


def test_records_of_both_worlds_are_read_from_a_topic(
    kafka_broker: str, registry: RunningRegistry, client: RegistryClient, tmp_path: Path
) -> None:
    topic = f"registry-{uuid.uuid4()}"
    pipeline = Pipeline("p")
    pipeline.stream("events", schema="id VARCHAR NOT NULL, n INT")
    pipeline.table("totals", "SELECT count(*) AS events, sum(n) AS n FROM events")
    plan = plan_pipeline(pipeline)
    form = StreamFormat(pipeline.streams[0], "avro", f"{topic}-value")
    log = open_kafka_log(KafkaSettings(brokers=kafka_broker, topic=topic, partitions=1), "events")
    with closing(log):
        encoder = Encoder(form, prepare(client, form, auto_register=True))
        EncodedLog(log, encoder).append(
            append_table([f'{{"id": "ours{n}", "n": 1}}'.encode() for n in range(40)])
        )
        client._ask("PUT", f"/config/{topic}-value", {"compatibility": "FORWARD"})
        send_with_their_serializer(kafka_broker, topic, registry.url)
        log.append(append_table([b"\x00\x00\x0f\xff\xff\x02a"]))
        store = Store.open(tmp_path / "store.duckdb", plan, identities={"events": log.identity})
        framing = RegistryFraming(client, form)
        engine = LocalEngine(plan, {"events": log}, store, framings={"events": framing})
        try:
            while engine.step() is not None:
                pass
            assert store.query("SELECT events, n FROM totals").to_pylist() == [{"events": 42, "n": 60}]
            (letter,) = store.dead_letters(limit=10).to_pylist()
            assert letter["reasons"][0]["rule"] == "schema"
            assert store.ledger().balanced
        finally:
            engine.close()
            store.close()
