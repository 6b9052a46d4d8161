"""Rows that executors write into Delta and Parquet: they are the oracle's, whenever the driver dies."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import canonical
import duckdb
import pytest
from crash_pipeline import PARTITIONS, append_table, arrivals, expected, pipeline
from deltalake import DeltaTable

import headrace as hr
from headrace.engine.local import LocalEngine
from headrace.engine.spark import SparkSettings
from headrace.engine.spark.engine import SparkEngine
from headrace.errors import RefusedError
from headrace.log.kafka import KafkaLog, open_kafka_log
from headrace.replicate.columns import LakeOptions
from headrace.replicate.delta import DeltaReplica
from headrace.replicate.follower import Follower
from headrace.replicate.parquet import ParquetReplica
from headrace.replicate.staged import RowsStage
from headrace.sql import plan_pipeline
from headrace.store import Store
from headrace.testing.records import append_table as redriven
from headrace.testing.replica_runs import Kept, catch_up
from log.kafka_streams import values
from servers.topics import kafka_topics

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

_RECORDS = 2_000
_BATCH = 300
_STEPS = ("action", "table:clean", "ledger", "commit", "publish")


class Died(Exception):
    """The driver is gone."""


@dataclass
class Lake:
    """A folder of Delta or Parquet tables."""

    folder: Path
    kind: str

    def options(self) -> LakeOptions:
        made = DeltaReplica if self.kind == "delta" else ParquetReplica
        found: LakeOptions = made(kind=self.kind, path=str(self.folder), tables=("clean",))
        return found

    def rows(self) -> list[dict[str, Any]]:
        if self.kind == "delta":
            rows = DeltaTable(self.folder / "clean").to_pyarrow_table()
        else:
            with duckdb.connect() as connection:
                connection.execute("SET TimeZone = 'UTC'")
                rows = connection.sql(
                    f"FROM read_parquet('{self.folder}/clean/**/*.parquet')"
                ).to_arrow_table()
        hidden = [name for name in rows.column_names if name in ("_version", "date", "hour")]
        return canonical.rows(rows.drop_columns(hidden).to_pylist())

    def staged(self) -> list[Path]:
        return [*self.folder.glob("_headrace/clean/rows-*/*")]


@pytest.fixture(params=["delta", "parquet"])
def lake(request: pytest.FixtureRequest, tmp_path: Path) -> Lake:
    return Lake(tmp_path / "lake", request.param)


@pytest.fixture
def log(kafka_broker: str) -> Iterator[KafkaLog]:
    with kafka_topics(kafka_broker) as topics:
        found = open_kafka_log(topics.settings("events", PARTITIONS), "events")
        yield found
        found.close()


@contextmanager
def opened(
    log: KafkaLog,
    folder: Path,
    lake: Lake,
    session: SparkSession,
    on_step: Callable[[str], None] = lambda step: None,
    declared: hr.Pipeline = pipeline,
) -> Iterator[SparkEngine]:
    plan = plan_pipeline(declared)
    store = Store.open(
        folder / "store.duckdb", plan, identities={"events": log.identity}, outside={"clean": "the lake"}
    )
    table = next(table for table in plan.tables if table.name == "clean")
    stage = RowsStage.of(table, lake.options(), lake.folder, store.status().store_id)
    engine = SparkEngine(
        plan,
        {"events": log},
        store,
        spark=SparkSettings(batch_rows_max=_BATCH),
        on_step=on_step,
        session=session,
        outside={"clean": stage},
    )
    try:
        yield engine
    finally:
        engine.close()
        store.close()


def copied(engine: SparkEngine, lake: Lake) -> None:
    follower = Follower("lake", lake.options(), engine._plan, engine._store, Kept())
    follower.start()
    try:
        catch_up(follower)
    finally:
        follower.stop(0)


def test_rows_written_by_executors_are_the_oracle_s_whenever_the_driver_dies(
    log: KafkaLog, lake: Lake, spark_session: SparkSession, tmp_path: Path
) -> None:
    sent = arrivals(_RECORDS, seed=12)
    log.append(append_table(sent))
    answers = expected(sent)
    for step in _STEPS:
        passes = 1

        def on_step(passed: str, step: str = step) -> None:
            nonlocal passes
            if passed == step:
                passes -= 1
                if passes < 0:
                    raise Died(step)

        with opened(log, tmp_path, lake, spark_session, on_step) as engine:
            with pytest.raises(Died):
                engine.run(threading.Event(), until_caught_up=True)
            left = {file.name for file in lake.staged()}
            assert left
            if step in ("commit", "action"):
                copied(engine, lake)
    with opened(log, tmp_path, lake, spark_session) as engine:
        engine.run(threading.Event(), until_caught_up=True)
        copied(engine, lake)
        store = engine._store
        assert store.ledger().balanced
        outcomes = dict(sorted(store.ledger().outcomes("events").items()))
        assert {name: n for name, n in outcomes.items() if n} == answers["outcomes"]
        (status,) = [each for each in store.status().tables if each.table == "clean"]
        assert status.rows == len(answers["tables"]["clean"])
        for name in ("minutes", "visits", "totals"):
            rows = canonical.rows(store.query(f"FROM {name}").to_pylist())
            assert canonical.differences(answers["tables"][name], rows, name) == []
        assert store.connection.execute("SELECT count(*) FROM _state.clean").fetchall() == [(0,)]
    assert canonical.differences(answers["tables"]["clean"], lake.rows(), "clean") == []
    assert lake.staged() == []


def evens(name: str = "clean") -> hr.Pipeline:
    """A pipeline without copies, whose tables one job computes; no record is so old that it is late."""
    found = hr.Pipeline("evens")
    found.stream("events", schema="n BIGINT NOT NULL", allowed_lateness="10 minutes")
    found.table(name, "SELECT n, n * 2 AS twice FROM events WHERE n % 2 = 0")
    return found


def counted(lake: Lake) -> list[int]:
    return sorted(row["n"] for row in lake.rows())


def test_rows_of_one_job_of_the_redrive_lane_and_of_a_rebuild_are_all_in_the_files(
    log: KafkaLog, lake: Lake, spark_session: SparkSession, tmp_path: Path
) -> None:
    log.append(values(*[b'{"n": %d}' % number for number in range(60)], b'{"n": "six"}'))
    plan = plan_pipeline(evens("another"))
    store = Store.open(tmp_path / "store.duckdb", plan, identities={"events": log.identity})
    local = LocalEngine(plan, {"events": log}, store)
    local.run(threading.Event(), until_caught_up=True)
    local.close()
    store.close()

    # The table is new: the driver computes what was read before, and executors what comes.
    log.append(values(*[b'{"n": %d}' % number for number in range(60, 700)]))
    with opened(log, tmp_path, lake, spark_session, declared=evens()) as engine:
        engine.run(threading.Event(), until_caught_up=True)
        (letter,) = engine._store.dead_letters().to_pylist()
        copied(engine, lake)
    assert counted(lake) == list(range(0, 700, 2))
    place = f"{letter['partition']}:{letter['offset']}"
    log.lane("redrive").append(redriven([b'{"n": 6000}'], address=place))
    with opened(log, tmp_path, lake, spark_session, declared=evens()) as engine:
        engine.run(threading.Event(), until_caught_up=True)
        copied(engine, lake)
        (ledger,) = engine._store.ledger().tables
        (status,) = engine._store.status().tables
        assert (ledger.kept, status.rows) == (351, 351)
    assert counted(lake) == [*range(0, 700, 2), 6000]
    assert lake.staged() == []


def test_executors_that_see_another_folder_stop_the_run_and_the_next_one_goes_on(
    log: KafkaLog, spark_session: SparkSession, tmp_path: Path
) -> None:
    lake = Lake(tmp_path / "lake", "delta")
    log.append(values(*[b'{"n": %d}' % number for number in range(700)]))
    away = tmp_path / "away"
    with opened(log, tmp_path, lake, spark_session, declared=evens()) as engine:
        with pytest.raises(RefusedError, match="do not see the same folder"):
            engine.run(
                threading.Event(),
                until_caught_up=True,
                on_epoch=lambda report: lake.folder.rename(away) and None,
            )
        assert engine._store.status().epoch == 1
    away.rename(lake.folder)
    with opened(log, tmp_path, lake, spark_session, declared=evens()) as engine:
        engine.run(threading.Event(), until_caught_up=True)
        copied(engine, lake)
    assert counted(lake) == list(range(0, 700, 2))
