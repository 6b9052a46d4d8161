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
from servers.guard import wait_until
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


def test_executors_read_avro_and_wait_for_a_registry_until_it_is_there_and_no_longer(
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
        told: list[Waiting | None] = []

        def waits(pause: Waiting | None) -> None:
            told.append(pause)
            if pause is not None and not back:
                back.append(serve(tmp_path / "registry.db", int(server.url.rpartition(":")[2])))

        store = Store.open(tmp_path / "store.duckdb", plan, identities={"events": log.identity})
        engine = SparkEngine(
            plan, {"events": log}, store, spark=SparkSettings(), session=spark_session,
            framings={"events": framing},
        )  # fmt: skip
        stop = threading.Event()
        running = threading.Thread(target=engine.run, args=(stop,), kwargs={"on_waiting": waits})
        running.start()
        try:
            ready = "the run is told to wait no more while it goes on"
            wait_until(lambda: bool(told) and told[-1] is None, what=ready, seconds=120)
            assert running.is_alive()
            wait_until(lambda: store.status().epoch > 0, what="the records are read", seconds=120)
            stop.set()
            running.join(120)
            total = {"records": _RECORDS, "n": sum(range(_RECORDS))}
            assert store.query("FROM total").to_pylist() == [total]
            (letter,) = store.dead_letters(limit=10).to_pylist()
            assert letter["reasons"][0]["rule"] == "schema"
            assert store.ledger().balanced
        finally:
            stop.set()
            running.join(120)
            engine.close()
            store.close()
            for served, its_thread in back:
                served.stop()
                its_thread.join(20)
