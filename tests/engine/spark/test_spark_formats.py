"""Avro on Spark: executors read it by the registry's schemas, and wait for a registry that is away."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import headrace as hr
from headrace.engine.spark import SparkSettings
from headrace.engine.spark.engine import SparkEngine
from headrace.log.backoff import Waiting
from headrace.log.kafka import open_kafka_log
from headrace.log.registry.client import RegistryClient
from headrace.log.registry.framing import RegistryFraming, StreamFormat
from headrace.produce.encoding import EncodedLog, Encoder, prepare
from headrace.sql import plan_pipeline
from headrace.store import Store
from headrace.web.registry import RegistryServer
from log.kafka_streams import values
from servers.topics import KafkaTopics, kafka_topics

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

_RECORDS = 50

pipeline = hr.Pipeline("avro")
pipeline.stream("events", schema="id VARCHAR NOT NULL, n INT")
pipeline.table("total", "SELECT count(*) AS records, sum(n) AS n FROM events")


@pytest.fixture
def topics(kafka_broker: str) -> Iterator[KafkaTopics]:
    with kafka_topics(kafka_broker) as found:
        yield found


def serve(path: Path, port: int = 0) -> tuple[RegistryServer, threading.Thread]:
    server = RegistryServer(path, port=port)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    return server, thread


def test_executors_read_avro_and_wait_for_a_registry_that_is_away(
    topics: KafkaTopics, spark_session: SparkSession, tmp_path: Path
) -> None:
    plan = plan_pipeline(pipeline)
    server, thread = serve(tmp_path / "registry.db")
    form = StreamFormat(pipeline.streams[0], "avro", "events-value")
    with (
        closing(RegistryClient(server.url)) as client,
        closing(RegistryFraming(RegistryClient(server.url), form)) as framing,
        closing(open_kafka_log(topics.settings("events", 2), "events")) as log,
    ):
        encoder = Encoder(form, prepare(client, form, auto_register=True))
        EncodedLog(log, encoder).append(
            values(*[b'{"id": "e%d", "n": %d}' % (number, number) for number in range(_RECORDS)])
        )
        log.append(values(b"\x00\x00\x0f\xff\xff\x02a"))  # the registry knows no such schema
        server.stop()
        thread.join(20)
        back: list[tuple[RegistryServer, threading.Thread]] = []

        def waits(pause: Waiting | None) -> None:
            if pause is not None and not back:
                back.append(serve(tmp_path / "registry.db", int(server.url.rpartition(":")[2])))

        store = Store.open(tmp_path / "store.duckdb", plan, identities={"events": log.identity})
        engine = SparkEngine(
            plan, {"events": log}, store, spark=SparkSettings(), session=spark_session,
            framings={"events": framing},
        )  # fmt: skip
        try:
            engine.run(threading.Event(), until_caught_up=True, on_waiting=waits)
            assert back, "the run waited for the registry"
            total = {"records": _RECORDS, "n": sum(range(_RECORDS))}
            assert store.query("FROM total").to_pylist() == [total]
            (letter,) = store.dead_letters(limit=10).to_pylist()
            assert letter["reasons"][0]["rule"] == "schema"
            assert store.ledger().balanced
        finally:
            engine.close()
            store.close()
            for running, its_thread in back:
                running.stop()
                its_thread.join(20)
