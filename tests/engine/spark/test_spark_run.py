"""A run on Spark: it stops after the micro-batch at work, and the local engine goes on with its store."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc
import pytest

import headrace as hr
from headrace.engine.local import EpochReport, LocalEngine
from headrace.engine.spark import SparkSettings
from headrace.engine.spark.cluster import ClusterFacts
from headrace.engine.spark.engine import SparkEngine
from headrace.log.kafka import open_kafka_log
from headrace.sql import plan_pipeline
from headrace.store import Store
from log.kafka_streams import values
from servers.topics import KafkaTopics, kafka_topics

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

_RECORDS = 60
_BATCH = 25

pipeline = hr.Pipeline("stopped")
pipeline.stream("events", schema="n BIGINT NOT NULL")


@pipeline.function(arguments=["BIGINT"], returns="BIGINT")
def twice(numbers: pa.Array) -> pa.Array:
    return pc.multiply(numbers, 2)


pipeline.table("total", "SELECT count(*) AS records, sum(twice(n)) AS n FROM events")


@pytest.fixture
def topics(kafka_broker: str) -> Iterator[KafkaTopics]:
    with kafka_topics(kafka_broker) as found:
        yield found


def test_a_stop_takes_effect_after_the_micro_batch_and_the_local_engine_goes_on(
    topics: KafkaTopics, spark_session: SparkSession, tmp_path: Path
) -> None:
    plan = plan_pipeline(pipeline)
    log = open_kafka_log(topics.settings("events", 1), "events")

    def open_store() -> Store:
        return Store.open(tmp_path / "store.duckdb", plan, identities={"events": log.identity})

    log.append(values(*[b'{"n": %d}' % number for number in range(_RECORDS)]))
    stop, store = threading.Event(), open_store()
    settings = SparkSettings(batch_rows_max=_BATCH)
    spark = SparkEngine(plan, {"events": log}, store, spark=settings, session=spark_session)
    seen: list[ClusterFacts | None] = []

    def told(report: EpochReport) -> None:
        seen.append(spark.cluster)
        stop.set()

    spark.run(stop, on_epoch=told)
    assert seen[0] is not None
    assert (seen[0].master, seen[0].executors, seen[0].page) == ("local[2]", 1, None)
    assert spark.cluster is None
    (total,) = store.query("FROM total").to_pylist()
    assert 0 < total["records"] <= _BATCH
    assert total["n"] == 2 * sum(range(total["records"]))
    assert store.ledger().balanced
    spark.close()
    store.close()

    store = open_store()
    local = LocalEngine(plan, {"events": log}, store)
    local.run(threading.Event(), until_caught_up=True)
    assert store.query("FROM total").to_pylist() == [{"records": _RECORDS, "n": 2 * sum(range(_RECORDS))}]
    assert store.ledger().balanced
    local.close()
    store.close()
    log.close()
