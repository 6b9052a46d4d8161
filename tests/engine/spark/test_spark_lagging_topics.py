"""Topics whose partitions lie far apart in time, at size, in small micro-batches on Spark: nothing is lost.

With Spark's own Kafka source and watermark, topics like these lost 11 to 35 % of the accepted records.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest

import headrace as hr
from headrace.engine.local import EpochReport
from headrace.engine.spark import SparkSettings
from headrace.engine.spark.engine import SparkEngine
from headrace.testing import PipelineTest
from servers.topics import KafkaTopics, kafka_topics

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

pytestmark = [pytest.mark.soak, pytest.mark.timeout(1800)]

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
_MINUTE = 60_000_000
_LATENESS = timedelta(minutes=5)

Times = npt.NDArray[np.int64]
"""Microseconds since NOON."""


@pytest.fixture
def topics(kafka_broker: str) -> Iterator[KafkaTopics]:
    with kafka_topics(kafka_broker) as found:
        yield found


def _pipeline() -> hr.Pipeline:
    pipeline = hr.Pipeline("lagging")
    pipeline.stream(
        "events", schema="seen TIMESTAMP NOT NULL, n INT", event_time="seen", allowed_lateness=_LATENESS
    )
    pipeline.table(
        "by_minute", "SELECT window_start, count(*) AS events FROM events GROUP BY window(seen, '1 minute')"
    )
    pipeline.table("total", "SELECT count(*) AS events, min(seen) AS first, max(seen) AS last FROM events")
    return pipeline


class _Topic:
    """Records of a test: appended, and counted by the minute of their event time as they should be."""

    def __init__(self, test: PipelineTest) -> None:
        self.test = test
        self.minutes: Counter[int] = Counter()
        self._chance = np.random.default_rng(11)

    def append(self, partition: int, times: Times) -> None:
        """Append records of these record times; events lie up to five minutes before them."""
        seen = times - self._chance.integers(0, _LATENESS // timedelta(microseconds=1), len(times))
        self.minutes.update((seen // _MINUTE).tolist())
        start = np.datetime64(NOON.replace(tzinfo=None), "us")
        values = [b'{"seen": "%s", "n": 1}' % str(one).encode() for one in start + seen.astype("m8[us]")]
        instants = pa.array(start + times.astype("m8[us]")).cast(pa.timestamp("us", "UTC"))
        columns = {
            "partition": pa.array(np.full(len(times), partition, np.int32)),
            "record_time": instants,
            "value": pa.array(values, pa.binary()),
        }
        self.test.log("events").append(pa.table(columns))

    def read_by(self, session: SparkSession, batch_rows_max: int) -> int:
        """Let Spark read all of it; return how many micro-batches there were."""
        store = self.test.store
        epochs: list[EpochReport] = []
        engine = SparkEngine(
            store.plan,
            {"events": self.test.log("events")},
            store,
            spark=SparkSettings(batch_rows_max=batch_rows_max),
            session=session,
        )
        try:
            engine.run(threading.Event(), until_caught_up=True, on_epoch=epochs.append)
        finally:
            engine.close()
        return len(epochs)

    def check(self) -> None:
        """Every record is accepted, and in the window of its minute."""
        total = sum(self.minutes.values())
        assert self.test.outcomes("events") == {"accepted": total}
        assert self.test.ledger().balanced
        rows = self.test.table("by_minute")
        given = {(row["window_start"] - NOON) // timedelta(minutes=1): row["events"] for row in rows}
        assert given == dict(self.minutes)
        [row] = self.test.table("total")
        assert row["events"] == total


def _opened(topics: KafkaTopics, partitions: int, folder: Path) -> PipelineTest:
    return PipelineTest(
        _pipeline(), partitions=partitions, start=NOON, folder=folder, open_log=topics.open_log
    )


def test_a_partition_ten_minutes_behind_loses_nothing(
    topics: KafkaTopics, spark_session: SparkSession, tmp_path: Path
) -> None:
    with _opened(topics, 4, tmp_path) as test:
        topic = _Topic(test)
        for minute in range(130):
            for partition in range(4):
                at = minute - 10 if partition == 3 else minute
                if 0 <= at < 120:
                    topic.append(partition, at * _MINUTE + np.arange(400, dtype=np.int64) * (_MINUTE // 400))
        test.clock.time = NOON + timedelta(hours=3)
        batches = topic.read_by(spark_session, 5_000)
        topic.check()
        assert batches >= 4 * 120 * 400 // 5_000


def test_two_partitions_that_hold_the_same_hours_unevenly_lose_nothing(
    topics: KafkaTopics, spark_session: SparkSession, tmp_path: Path
) -> None:
    seconds = np.arange(7_200, dtype=np.int64) * 1_000_000
    with _opened(topics, 2, tmp_path) as test:
        topic = _Topic(test)
        # The first one is an hour and a half ahead before the second one has its first record.
        topic.append(0, seconds[:5_400])
        for part in np.array_split(seconds, 12):
            topic.append(1, part)
        topic.append(0, seconds[5_400:])
        test.clock.time = NOON + timedelta(hours=3)
        batches = topic.read_by(spark_session, 600)
        topic.check()
        assert sum(topic.minutes.values()) == 14_400
        assert batches >= 14_400 // 600
