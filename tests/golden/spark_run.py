"""Runs a golden case on the Spark engine, over a real broker."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from golden_case import Case
from golden_run import written

from headrace.engine.spark import SparkSettings
from headrace.engine.spark.engine import SparkEngine
from headrace.testing import PipelineTest, SimulatedCrash
from servers.topics import KafkaTopics

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


def run_on_spark(
    case: Case,
    topics: KafkaTopics,
    session: SparkSession,
    *,
    batch_rows_max: int,
    crash_at: Sequence[str] = (),
) -> tuple[dict[str, Any], int]:
    """The answers of `case`, and how many micro-batches there were.

    After the first time of each step in `crash_at` the run dies, and another one goes on.
    """
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
        batches, left = 0, list(crash_at)
        while True:
            try:
                batches += _run(test, case, session, batch_rows_max, left)
            except SimulatedCrash:
                test.restart()
            else:
                break
        assert not left
        return written(test, case), batches


def _run(
    test: PipelineTest, case: Case, session: SparkSession, batch_rows_max: int, crash_at: list[str]
) -> int:
    """Run until caught up; dies after the first step that is in `crash_at`, and takes it out."""
    epochs: list[int] = []

    def on_step(step: str) -> None:
        if step in crash_at:
            crash_at.remove(step)
            raise SimulatedCrash(len(epochs), step)

    logs = {stream: test.log(stream) for stream in case.partitions}
    settings = SparkSettings(batch_rows_max=batch_rows_max, quiet=timedelta(hours=1))
    store = test.store
    engine = SparkEngine(store.plan, logs, store, spark=settings, session=session, on_step=on_step)
    try:
        engine.run(
            threading.Event(), until_caught_up=True, on_epoch=lambda report: epochs.append(report.epoch)
        )
    finally:
        engine.close()
    return len(epochs)
