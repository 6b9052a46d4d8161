"""A run on Spark: how it stops, and that the local engine goes on with its store."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc
import pytest

import headrace as hr
from headrace.engine.local import EpochReport, LocalEngine
from headrace.engine.spark import SparkSettings
from headrace.engine.spark import engine as engine_module
from headrace.engine.spark.cluster import ClusterFacts
from headrace.engine.spark.engine import SparkEngine
from headrace.engine.spark.pace import ROWS_AT_FIRST, rows_allowed
from headrace.engine.spark.session import register_source
from headrace.log.kafka import KafkaLog, open_kafka_log
from headrace.sql import plan_pipeline
from headrace.store import Store
from log.kafka_streams import values
from servers.guard import wait_until
from servers.topics import KafkaTopics, kafka_topics

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

_RECORDS = 60
_BATCH = 25

pipeline = hr.Pipeline("stopped")
pipeline.stream("events", schema="n BIGINT NOT NULL", label="n")


@pipeline.function(arguments=["BIGINT"], returns="BIGINT")
def twice(numbers: pa.Array) -> pa.Array:
    return pc.multiply(numbers, 2)


pipeline.table("total", "SELECT count(*) AS records, sum(twice(n)) AS n FROM events")


@pytest.fixture
def topics(kafka_broker: str) -> Iterator[KafkaTopics]:
    with kafka_topics(kafka_broker) as found:
        yield found


def labelled(store: Store) -> int:
    """Return how many records were accepted, by the counts of the label."""
    return sum(outcomes["accepted"] for outcomes in store.progress.labels["events"].counts.values())


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
    assert labelled(store) == total["records"]
    spark.close()
    store.close()

    store = open_store()
    local = LocalEngine(plan, {"events": log}, store)
    local.run(threading.Event(), until_caught_up=True)
    assert store.query("FROM total").to_pylist() == [{"records": _RECORDS, "n": 2 * sum(range(_RECORDS))}]
    assert store.ledger().balanced
    assert labelled(store) == _RECORDS
    assert "other" in store.progress.labels["events"].counts
    local.close()
    store.close()
    log.close()


def when_free(numbers: pa.Array, gates: pa.Array) -> pa.Array:
    """The numbers, as soon as the file that `gates` names is gone; one beside it tells that they wait."""
    gate = Path(gates[0].as_py())
    while gate.exists():
        gate.with_name("waiting").touch()
        threading.Event().wait(0.05)
    return numbers


@pytest.fixture
def log(topics: KafkaTopics) -> Iterator[KafkaLog]:
    found = open_kafka_log(topics.settings("events", 1), "events")
    found.append(values(*[b'{"n": %d}' % number for number in range(_RECORDS)]))
    yield found
    found.close()


def test_a_stop_waits_for_the_merge_so_that_the_store_is_not_closed_under_it(
    log: KafkaLog, spark_session: SparkSession, tmp_path: Path
) -> None:
    plan = plan_pipeline(pipeline)
    store = Store.open(tmp_path / "store.duckdb", plan, identities={"events": log.identity})
    stop, over = threading.Event(), threading.Event()
    overtaken: list[bool] = []

    def on_step(step: str) -> None:
        if step == "ledger":
            stop.set()
            overtaken.append(over.wait(2))

    settings = SparkSettings()
    spark = SparkEngine(plan, {"events": log}, store, spark=settings, session=spark_session, on_step=on_step)
    spark.run(stop)
    over.set()
    assert overtaken == [False]
    assert store.query("SELECT records FROM total").to_pylist() == [{"records": _RECORDS}]
    assert store.status().epoch == 1
    spark.close()
    store.close()


def test_a_micro_batch_that_takes_too_long_for_a_stop_is_given_up_and_done_again(
    log: KafkaLog, spark_session: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate, waiting = tmp_path / "gate", tmp_path / "waiting"
    slow = hr.Pipeline("slow")
    slow.stream("events", schema="n BIGINT NOT NULL")
    slow.function(arguments=["BIGINT", "VARCHAR"], returns="BIGINT")(when_free)
    slow.table("total", f"SELECT count(*) AS records, sum(when_free(n, '{gate}')) AS n FROM events")
    gate.touch()
    monkeypatch.setattr(engine_module, "_LAST_BATCH_S_MAX", 0.2)
    plan = plan_pipeline(slow)
    store = Store.open(tmp_path / "store.duckdb", plan, identities={"events": log.identity})
    spark = SparkEngine(plan, {"events": log}, store, spark=SparkSettings(), session=spark_session)
    stop, failures = threading.Event(), []

    def run() -> None:
        try:
            spark.run(stop)
        except BaseException as error:  # noqa: BLE001 - looked at below
            failures.append(error)

    running = threading.Thread(target=run)
    running.start()
    try:
        wait_until(waiting.exists, what="executors compute the micro-batch", seconds=120)
        stop.set()
        running.join(60)
        assert not running.is_alive()
    finally:
        gate.unlink()
        stop.set()
        running.join(120)
    assert failures == []
    assert store.status().epoch == 0
    assert rows_allowed(spark._notes.pace, 1_000_000) == ROWS_AT_FIRST // 2
    spark.run(threading.Event(), until_caught_up=True)
    assert store.query("FROM total").to_pylist() == [{"records": _RECORDS, "n": sum(range(_RECORDS))}]
    assert store.ledger().balanced
    spark.close()
    store.close()


def test_a_checkpoint_at_a_uri_holds_the_notes_of_the_last_run_alone_and_nothing_rests_on_it(
    log: KafkaLog, spark_session: SparkSession, tmp_path: Path
) -> None:
    plan, place = plan_pipeline(pipeline), tmp_path / "notes"
    settings = SparkSettings(checkpoint=place.as_uri())
    kept: list[Path] = []
    for run in (1, 2):
        store = Store.open(tmp_path / "store.duckdb", plan, identities={"events": log.identity})
        spark = SparkEngine(plan, {"events": log}, store, spark=settings, session=spark_session)
        spark.run(threading.Event(), until_caught_up=True)
        spark.close()
        (notes,) = place.glob("headrace-*/run-*")
        assert (notes / "offsets").is_dir()
        for entry in (notes / "commits").glob("[0-9]*"):  # as after a driver that died before Spark wrote it
            entry.unlink()
        kept.append(notes)
        assert store.query("SELECT records FROM total").to_pylist() == [{"records": run * _RECORDS}]
        store.close()
        log.append(values(*[b'{"n": %d}' % number for number in range(_RECORDS)]))
    assert kept[0] != kept[1]
    assert kept[0].parent == kept[1].parent


def test_with_an_interval_the_next_micro_batch_waits_for_it_and_a_stop_does_not(
    log: KafkaLog, spark_session: SparkSession, tmp_path: Path
) -> None:
    plan = plan_pipeline(pipeline)
    store = Store.open(tmp_path / "store.duckdb", plan, identities={"events": log.identity})
    # Micro-batches begin at its multiples since 1970, of which the next one is in 2079.
    settings = SparkSettings(batch_rows_max=_BATCH, trigger=timedelta(days=20_000))
    spark = SparkEngine(plan, {"events": log}, store, spark=settings, session=spark_session)
    stop = threading.Event()
    running = threading.Thread(target=spark.run, args=(stop,))

    def waits() -> bool:
        assert running.is_alive()
        return "Waiting for next trigger" in [each.status["message"] for each in spark_session.streams.active]

    running.start()
    try:
        wait_until(waits, what="the query waits for its next trigger", seconds=120)
    finally:
        stop.set()
        running.join(120)
    assert not running.is_alive()
    assert store.status().epoch == 1
    (total,) = store.query("SELECT records FROM total").to_pylist()
    assert 0 < total["records"] <= _BATCH
    spark.close()
    store.close()


@pytest.mark.slow
def test_micro_batches_lie_as_far_apart_as_the_interval_says(
    log: KafkaLog, spark_session: SparkSession, tmp_path: Path
) -> None:
    plan, interval = plan_pipeline(pipeline), timedelta(seconds=1)
    store = Store.open(tmp_path / "store.duckdb", plan, identities={"events": log.identity})
    settings = SparkSettings(batch_rows_max=_RECORDS // 6, trigger=interval)
    spark = SparkEngine(plan, {"events": log}, store, spark=settings, session=spark_session)
    begun: list[datetime] = []

    def told(report: EpochReport) -> None:
        (query,) = spark_session.streams.active
        begun[:] = [datetime.fromisoformat(one["timestamp"]) for one in query.recentProgress]

    spark.run(threading.Event(), until_caught_up=True, on_epoch=told)
    assert store.query("SELECT records FROM total").to_pylist() == [{"records": _RECORDS}]
    assert len(begun) >= 5
    # The first one begins at once, and the moment that is told of it may be a little later than its own.
    assert begun[-1] - begun[0] >= (len(begun) - 3) * interval
    spark.close()
    store.close()


@pytest.mark.slow
def test_a_process_of_spark_takes_pyspark_as_it_is_installed_and_not_out_of_an_archive(
    spark_session: SparkSession,
) -> None:
    def found(_: int) -> tuple[str, list[str]]:
        import pyspark

        return str(pyspark.__file__), sys.path

    register_source(spark_session)  # it says by which Python
    (file, places), *_ = spark_session.sparkContext.parallelize([0], 1).map(found).collect()
    assert Path(file).is_file()
    assert not [place for place in places if place.endswith("pyspark.zip") and Path(place).exists()]
