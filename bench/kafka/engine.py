"""Headrace as it is measured: a pipeline of a case over a Kafka topic, opened and run in this process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import headrace as hr
from bench.data import STREAM
from bench.kafka.data import PARTITIONS
from bench.kafka.oracle import CASES, COMMERCE
from bench.worker import Run


def pipeline_for(case: str) -> hr.Pipeline:
    """Return the pipeline of a case: one tumbling table of a minute, or the whole shop."""
    if case == COMMERCE:
        from headrace.blueprints.commerce.pipeline import pipeline

        return pipeline
    key, pipeline = CASES[case], hr.Pipeline(f"by_{case}")
    pipeline.stream(
        STREAM,
        schema=f"{key} VARCHAR NOT NULL, timestamp TIMESTAMP NOT NULL, total_amount DECIMAL(12,2)",
        event_time="timestamp",
        allowed_lateness="5 minutes",
    )
    pipeline.table(
        "result",
        f"""
        SELECT window_start, {key} AS name, count(*) AS events, sum(total_amount) AS revenue
        FROM {STREAM} GROUP BY window(timestamp, '1 minute'), {key}
        """,
    )
    return pipeline


def open_run(case: str, brokers: str, topic: str, store: Path) -> Any:
    """Open log, store and engine of a case."""
    from headrace.log.kafka import KafkaSettings, open_kafka_log

    settings = KafkaSettings(brokers=brokers, topic=topic, partitions=PARTITIONS)
    return Run(pipeline_for(case), open_kafka_log(settings, STREAM), store)
