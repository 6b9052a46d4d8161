"""Headrace on Spark: the Spark engine as `headrace run` runs it, on local[2], ledger and durable store too.

Nothing of Spark is tuned by hand; a micro-batch has as many records at most as that of the job beside it.
"""

from __future__ import annotations

import threading
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.data import STREAM
from bench.kafka.contestants.marks import TASK, begin, end, passed
from bench.kafka.data import PARTITIONS
from bench.kafka.engine import pipeline_for, write_tables

from headrace.engine.spark import SparkSettings
from headrace.engine.spark.engine import SparkEngine, start_spark
from headrace.log.kafka import KafkaSettings, open_kafka_log
from headrace.sql import plan_pipeline
from headrace.store import Store

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from headrace.engine.local import EpochReport

OUT = Path(TASK["out"])


class Run:
    """A topic worked off from start to end: what is open, and what was told of each epoch with records."""

    def __init__(self, plan: Any, session: SparkSession, settings: SparkSettings, stream: Any, place: str):
        where = {"brokers": TASK["brokers"], "topic": stream["topic"], "partitions": PARTITIONS}
        log = open_kafka_log(KafkaSettings(**where, record_time="header"), STREAM)
        self.store = Store.open(OUT / f"{place}.duckdb", plan, identities={STREAM: log.identity})
        self.ends: list[float] = []
        self.rows: list[int] = []
        self.stages: Counter[str] = Counter()
        engine = SparkEngine(plan, {STREAM: log}, self.store, spark=settings, session=session)
        try:
            engine.run(threading.Event(), until_caught_up=True, on_epoch=self._note)
        finally:
            engine.close()
            log.close()
        if sum(self.rows) != stream["events"]:
            raise SystemExit(f"{sum(self.rows)} records read instead of {stream['events']}")

    def _note(self, report: EpochReport) -> None:
        records = sum(report.records.values())
        self.stages.update(report.seconds)
        if records:
            self.ends.append(passed())
            self.rows.append(records)


def main() -> None:
    """Warm up, measure, write."""
    case = TASK["case"]
    plan = plan_pipeline(pipeline_for(case))
    settings = SparkSettings(conf={"spark.master": "local[2]"}, batch_rows_max=TASK["batch_rows"])
    session = start_spark("bench", settings, OUT / "session")
    Run(plan, session, settings, TASK["warm"], "warm").store.close()
    begin()
    run = Run(plan, session, settings, TASK["stream"], "measured")
    end(
        epochs=len(run.rows),
        batch_ends=run.ends,
        batch_rows=run.rows,
        stages={name: round(seconds, 3) for name, seconds in run.stages.items()},
        balanced=bool(run.store.ledger().balanced),
        spark=session.version,
        java=session.sparkContext._jvm.java.lang.System.getProperty("java.version"),
    )
    write_tables(case, run.store, OUT)
    run.store.close()
    session.stop()


main()
