"""Runs a golden case on the Spark engine, over a real broker."""

from __future__ import annotations

import threading
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from golden_case import Case
from golden_run import written

from headrace.engine.spark import SparkSettings
from headrace.engine.spark.engine import SparkEngine
from headrace.testing import PipelineTest
from servers.topics import KafkaTopics

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


def run_on_spark(
    case: Case, topics: KafkaTopics, session: SparkSession, *, batch_rows_max: int
) -> tuple[dict[str, Any], int]:
    """The answers of `case`, and how many micro-batches there were."""
    test = PipelineTest(
        case.module("pipeline").pipeline,
        partitions=case.partitions,
        start=min(one.record_time for one in case.arrivals),
        open_log=topics.open_log,
    )
    with test:
        for arrival in case.arrivals:
            test.send_bytes(
                arrival.stream, [arrival.value], at=arrival.record_time, partition=arrival.partition
            )
        logs = {stream: test.log(stream) for stream in case.partitions}
        settings = SparkSettings(batch_rows_max=batch_rows_max, quiet=timedelta(hours=1))
        engine = SparkEngine(test.store.plan, logs, test.store, spark=settings, session=session)
        epochs: list[int] = []
        try:
            engine.run(
                threading.Event(),
                until_caught_up=True,
                on_epoch=lambda report: epochs.append(report.epoch),
            )
        finally:
            engine.close()
        return written(test, case), len(epochs)
