"""Spark's checkpoint is of no account: the gap `checkpoint_to_go_on_from`, which has no setting to refuse."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import headrace as hr
from headrace.engine.spark import SparkSettings
from headrace.engine.spark.engine import SparkEngine
from headrace.engine.spark.gaps import GAPS
from headrace.errors import ProfileError
from headrace.log.kafka import open_kafka_log
from headrace.sql import plan_pipeline
from headrace.store import Store
from log.kafka_streams import values
from servers.topics import kafka_topics

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

_RECORDS = 60


def _forget(store: Path, copy: Path) -> None:
    store.unlink()


def _set_back(store: Path, copy: Path) -> None:
    shutil.copy(copy, store)


@pytest.mark.parametrize("fault", [_forget, _set_back])
def test_a_run_goes_on_from_its_store_and_never_from_a_checkpoint_that_is_ahead_of_it(
    kafka_broker: str, spark_session: SparkSession, tmp_path: Path, fault: Callable[[Path, Path], None]
) -> None:
    assert "checkpoint_to_go_on_from" in {gap.name for gap in GAPS}
    pipeline = hr.Pipeline("noted")
    pipeline.stream("events", schema="n BIGINT NOT NULL")
    pipeline.table("total", "SELECT count(*) AS records FROM events")
    plan, place = plan_pipeline(pipeline), tmp_path / "store.duckdb"
    settings = SparkSettings(checkpoint=(tmp_path / "checkpoint").as_uri())
    with kafka_topics(kafka_broker) as topics:
        log = open_kafka_log(topics.settings("events", 1), "events")

        def run() -> int:
            """Return how many records the table holds then."""
            store = Store.open(place, plan, identities={"events": log.identity})
            spark = SparkEngine(plan, {"events": log}, store, spark=settings, session=spark_session)
            spark.run(threading.Event(), until_caught_up=True)
            spark.close()
            assert store.ledger().balanced
            (total,) = store.query("SELECT records FROM total").to_pylist()
            store.close()
            return int(total["records"])

        def append() -> None:
            log.append(values(*[b'{"n": %d}' % number for number in range(_RECORDS)]))

        try:
            append()
            assert run() == _RECORDS
            shutil.copy(place, tmp_path / "copy.duckdb")
            append()
            assert run() == 2 * _RECORDS
            fault(place, tmp_path / "copy.duckdb")
            append()
            assert run() == 3 * _RECORDS
        finally:
            log.close()


@pytest.mark.parametrize(("place", "words"), [("s3a://bucket/notes", "fs.s3a"), ("s3://b", "scheme .s3")])
def test_a_place_for_which_spark_has_no_classes_is_told_with_what_to_set(
    kafka_broker: str, spark_session: SparkSession, tmp_path: Path, place: str, words: str
) -> None:
    pipeline = hr.Pipeline("noted")
    pipeline.stream("events", schema="n BIGINT NOT NULL")
    plan = plan_pipeline(pipeline)
    with kafka_topics(kafka_broker) as topics:
        log = open_kafka_log(topics.settings("events", 1), "events")
        store = Store.open(tmp_path / "store.duckdb", plan, identities={"events": log.identity})
        settings = SparkSettings(checkpoint=place)
        spark = SparkEngine(plan, {"events": log}, store, spark=settings, session=spark_session)
        try:
            with pytest.raises(ProfileError, match=words) as raised:
                spark.run(threading.Event(), until_caught_up=True)
            assert "spark.jars.packages" in raised.value.fix
        finally:
            spark.close()
            store.close()
            log.close()
