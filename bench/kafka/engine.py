"""Headrace as it is measured: a pipeline of a case over a Kafka topic, opened and run in this process.

Its answers are written as those of the peers are: see `bench.kafka.oracle`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

import headrace as hr
from bench.data import STREAM
from bench.kafka.contestants.marks import write
from bench.kafka.data import PARTITIONS
from bench.kafka.oracle import CASES, LEFT_OUT, TABLES
from bench.worker import Run


def pipeline_for(case: str) -> hr.Pipeline:
    """Return the pipeline of a case: one tumbling table of a minute, or what it computes of the shop."""
    if case in TABLES:
        from headrace.blueprints.commerce.pipeline import pipeline

        if len(TABLES[case]) == 1:
            pipeline.tables = tuple(one for one in pipeline.tables if one.name in TABLES[case])
            pipeline.panels = pipeline.alerts = ()
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


def write_tables(case: str, store: Any, folder: Path) -> None:
    """Write what a store answers, for the comparison with the oracle."""
    if case not in TABLES:
        query = """
            SELECT epoch_ms(window_start), name, events, coalesce(CAST(revenue * 100 AS BIGINT), 0)
            FROM result"""
        columns = store.query(query, seconds_max=600.0).columns
        write(zip(*(column.to_pylist() for column in columns), strict=True))
        return
    for table in TABLES[case]:
        chosen = f"* EXCLUDE ({', '.join(LEFT_OUT[table])})" if table in LEFT_OUT else "*"
        chosen = "event_id, timestamp, items_total" if table == "events_clean" else chosen
        rows = store.query(f"SELECT {chosen} FROM {table}", seconds_max=600.0)
        pq.write_table(rows, folder / f"{table}.parquet")
