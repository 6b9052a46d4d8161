"""Several streams, a reference that changes, and records that come again, in one run on Spark."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import headrace as hr
from headrace.engine.spark import SparkSettings
from headrace.engine.spark.engine import SparkEngine
from headrace.testing import PipelineTest
from headrace.testing.records import append_table
from servers.topics import KafkaTopics, kafka_topics

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

_START = datetime(2026, 3, 1, 12, tzinfo=UTC)
_PRICES = "product,price\ntea,{tea}\nmilk,1\n"


@pytest.fixture
def topics(kafka_broker: str) -> Iterator[KafkaTopics]:
    with kafka_topics(kafka_broker) as found:
        yield found


def _pipeline(prices: Path, unique: str | None) -> hr.Pipeline:
    pipeline = hr.Pipeline("lanes")
    pipeline.stream(
        "orders",
        schema="id VARCHAR NOT NULL, product VARCHAR, quantity INT",
        unique=unique,
        expect={"any_at_all": "quantity > 0"},
    )
    pipeline.stream("clicks", schema="product VARCHAR NOT NULL")
    pipeline.reference("prices", str(prices), key="product", schema="product VARCHAR NOT NULL, price BIGINT")
    pipeline.table(
        "sold",
        "SELECT o.product AS product, sum(o.quantity * p.price) AS total FROM orders o "
        "JOIN prices p ON o.product = p.product GROUP BY o.product",
    )
    pipeline.table("clicked", "SELECT product, count(*) AS clicks FROM clicks GROUP BY product")
    return pipeline


def _run(test: PipelineTest, session: SparkSession) -> None:
    logs = {stream: test.log(stream) for stream in ("orders", "clicks")}
    settings = SparkSettings(batch_rows_max=3)
    engine = SparkEngine(test.store.plan, logs, test.store, spark=settings, session=session)
    try:
        engine.run(threading.Event(), until_caught_up=True)
    finally:
        engine.close()
    assert test.ledger().balanced


@pytest.mark.parametrize("unique", [None, "id"])
def test_streams_a_new_version_of_a_reference_and_a_corrected_letter_meet_on_spark(
    unique: str | None, topics: KafkaTopics, spark_session: SparkSession, tmp_path: Path
) -> None:
    prices = tmp_path / "prices.csv"
    prices.write_text(_PRICES.format(tea=5))
    pipeline = _pipeline(prices, unique)
    streams = {"orders": 2, "clicks": 1}
    with PipelineTest(pipeline, partitions=streams, start=_START, open_log=topics.open_log) as test:
        for number in range(4):
            test.send("orders", {"id": f"a{number}", "product": "tea", "quantity": 1})
            test.send("clicks", {"product": "milk"})
        test.send("orders", {"id": "wrong", "product": "tea", "quantity": 0})
        _run(test, spark_session)
        assert test.table("sold") == [{"product": "tea", "total": 4 * 5}]
        (letter,) = test.dead_letters()
        assert letter["outcome"] == "rejected"

        prices.write_text(_PRICES.format(tea=7))
        test.clock.move(timedelta(hours=1))
        corrected = append_table(
            [b'{"id": "wrong", "product": "tea", "quantity": 10}'],
            record_time=letter["record_time"],
            address=f"{letter['partition']}:{letter['offset']}",
        )
        test.log("orders").lane("redrive").append(corrected)
        test.send("orders", {"id": "b", "product": "tea", "quantity": 1})
        test.send("clicks", {"product": "tea"})
        _run(test, spark_session)
        # What came again is joined with the version of the time at which it came first.
        assert test.table("sold") == [{"product": "tea", "total": 4 * 5 + 10 * 5 + 7}]
        clicked = sorted((row["product"], row["clicks"]) for row in test.table("clicked"))
        assert clicked == [("milk", 4), ("tea", 1)]
        assert test.outcomes("orders", lane="redrive") == {"accepted": 1}
