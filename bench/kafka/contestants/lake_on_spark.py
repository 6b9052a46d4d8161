"""Headrace on Spark with the shop's clean events in a Delta folder, by one of two ways.

`Lake.fill` takes a topic from its start to the moment when the folder holds every row. By way of the driver,
rows pass it into the store, and a replica reads them there; by executors, these write the folder's files.
"""

from __future__ import annotations

import dataclasses
import threading
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow.parquet as pq
from bench.data import STREAM
from bench.kafka.contestants.marks import TASK, begin, end
from bench.kafka.data import PARTITIONS
from bench.kafka.engine import pipeline_for
from deltalake import DeltaTable

from headrace.engine.spark import SparkSettings
from headrace.engine.spark.engine import SparkEngine, start_spark
from headrace.log.kafka import KafkaSettings, open_kafka_log
from headrace.replicate.delta import DeltaReplica
from headrace.replicate.follower import Follower
from headrace.replicate.staged import RowsStage
from headrace.sql import plan_pipeline
from headrace.store import Store
from headrace.testing.replica_runs import Kept

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from headrace.engine.local import EpochReport
    from headrace.sql.plan import PipelinePlan

OUT = Path(TASK["out"])
TABLE = "events_clean"


class Lake:
    """A folder, and what its filling took."""

    def __init__(self, folder: Path, plan: PipelinePlan, *, by_executors: bool) -> None:
        self._folder, self._plan, self._by_executors = folder, plan, by_executors
        self._options = DeltaReplica(kind="delta", path=str(folder), tables=(TABLE,))
        self.epochs = 0
        self.stages: Counter[str] = Counter()
        self.balanced = False

    def fill(self, session: SparkSession, settings: SparkSettings, stream: dict[str, Any]) -> None:
        where = {"brokers": TASK["brokers"], "topic": stream["topic"], "partitions": PARTITIONS}
        log = open_kafka_log(KafkaSettings(**where, record_time="header"), STREAM)
        outside = {TABLE: "the lake"} if self._by_executors else {}
        place = self._folder.with_suffix(".duckdb")
        store = Store.open(place, self._plan, identities={STREAM: log.identity}, outside=outside)
        (table,) = self._plan.tables
        stage = RowsStage.of(table, self._options, self._folder, store.status().store_id)
        engine = SparkEngine(
            self._plan, {STREAM: log}, store, spark=settings, session=session,
            outside={TABLE: stage} if self._by_executors else {},
        )  # fmt: skip
        follower = Follower("lake", self._options, self._plan, store, Kept())
        follower.start()
        records = 0

        def note(report: EpochReport) -> None:
            nonlocal records
            records += sum(report.records.values())
            self.epochs += 1
            self.stages.update(report.seconds)
            follower.wake()

        try:
            engine.run(threading.Event(), until_caught_up=True, on_epoch=note)
            follower.wait_until_caught_up(threading.Event())
            self.balanced = bool(store.ledger().balanced)
        finally:
            follower.stop(time.monotonic() + 60)
            engine.close()
            log.close()
            store.close()
        if records != stream["events"]:
            raise SystemExit(f"{records} records read instead of {stream['events']}")

    def write(self) -> None:
        """Write what the folder holds, for the comparison with the oracle."""
        columns = ["event_id", "timestamp", "items_total"]
        rows = DeltaTable(self._folder / TABLE).to_pyarrow_table(columns=columns)
        pq.write_table(rows, OUT / f"{TABLE}.parquet")


def main(*, by_executors: bool) -> None:
    """Warm up, measure, write."""
    pipeline = pipeline_for(TASK["case"])
    # What executors write is never deleted, so on both sides no row expires.
    pipeline.tables = tuple(dataclasses.replace(table, keep=None) for table in pipeline.tables)
    plan = plan_pipeline(pipeline)
    settings = SparkSettings(conf={"spark.master": "local[2]"}, batch_rows_max=TASK["batch_rows"])
    session = start_spark("bench", settings, OUT / "session")
    Lake(OUT / "warm", plan, by_executors=by_executors).fill(session, settings, TASK["warm"])
    lake = Lake(OUT / "measured", plan, by_executors=by_executors)
    used = time.process_time()
    begin()
    lake.fill(session, settings, TASK["stream"])
    end(
        epochs=lake.epochs,
        stages={name: round(seconds, 3) for name, seconds in lake.stages.items()},
        balanced=lake.balanced,
        driver_cpu_s=time.process_time() - used,
        spark=session.version,
        java=session.sparkContext._jvm.java.lang.System.getProperty("java.version"),
    )
    lake.write()
    session.stop()
