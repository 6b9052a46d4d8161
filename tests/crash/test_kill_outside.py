"""`kill -9` of a driver whose executors write rows into Delta or Parquet: none is lost, none is twice."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import canonical
import duckdb
import psutil
import pytest
from crash_pipeline import append_table, arrivals, expected
from deltalake import DeltaTable
from kafka_project import Load, end, lost
from spark_project import PASSES_S_MAX, SparkProject

from headrace.store import open_store_readonly
from servers.spark import SPARK_CONF, spark_cluster

_RECORDS = 6_000
_KILLS = 3
_RUN = ("run", "--profile", "cluster")
_LAKE = """
spark.rows_by_executors = ["clean"]
replicas.lake = {{ kind = "{kind}", path = "lake", tables = ["clean", "minutes"], linger = "300ms" }}
"""


def _rows(folder: Path, kind: str) -> list[dict[str, Any]]:
    if kind == "delta":
        rows = DeltaTable(folder / "clean").to_pyarrow_table()
    else:
        with duckdb.connect() as connection:
            connection.execute("SET TimeZone = 'UTC'")
            rows = connection.sql(f"FROM read_parquet('{folder}/clean/**/*.parquet')").to_arrow_table()
    return canonical.rows(rows.select(["id", "seen", "n"]).to_pylist())


def _check(project: SparkProject, kind: str) -> None:
    found = project.arrivals()
    answers = expected(found)
    store = open_store_readonly(project.folder / "store.duckdb")
    try:
        assert store.ledger().balanced
        told = {name: n for name, n in store.ledger().outcomes("events").items() if n}
        assert told == answers["outcomes"]
        (clean,) = [each for each in store.status().tables if each.table == "clean"]
        assert clean.rows == len(answers["tables"]["clean"])
        for name in ("minutes", "visits", "totals"):
            rows = canonical.rows(store.query(f"FROM {name}").to_pylist())
            assert canonical.differences(answers["tables"][name], rows, name) == []
    finally:
        store.close()
    lake = project.folder / "lake"
    assert canonical.differences(answers["tables"]["clean"], _rows(lake, kind), "clean") == []
    assert [*lake.glob("_headrace/clean/rows-*/*")] == []


@pytest.mark.soak
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("kind", ["delta", "parquet"])
def test_a_driver_killed_at_any_moment_changes_nothing_in_what_its_executors_write(
    kafka_broker: str, tmp_path: Path, kind: str
) -> None:
    chance = random.Random(9)
    with SparkProject(tmp_path, kafka_broker, SPARK_CONF, _LAKE.format(kind=kind)) as project:
        sent = arrivals(_RECORDS, seed=9)
        project.log.append(append_table(sent))
        for kill in range(_KILLS):
            driver = project.headrace(*_RUN, "--until-caught-up")
            share = len(sent) // (_KILLS + 1)
            project.passes(driver, kill * share + 1 + chance.randrange(share))
            end(driver)
        assert project.headrace(*_RUN, "--until-caught-up").wait(PASSES_S_MAX) == 0, project.said()
        assert lost(sent, project.arrivals()) == 0
        _check(project, kind)
        assert project.headrace("run", "--profile", "kafka", "--until-caught-up").wait(PASSES_S_MAX) != 0
        assert "Spark's executors have written them into files" in project.said()
        assert project.headrace("sql", "--profile", "cluster", "SELECT * FROM clean").wait(PASSES_S_MAX) != 0
        assert "executors write them into files (replica 'lake'" in project.said()
        _check(project, kind)


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_an_executor_killed_under_load_leaves_no_row_twice_in_what_it_wrote(
    kafka_broker: str, tmp_path: Path
) -> None:
    sent = arrivals(_RECORDS, seed=10)
    with (
        spark_cluster() as cluster,
        SparkProject(tmp_path, kafka_broker, cluster.conf, _LAKE.format(kind="delta")) as project,
    ):
        load = Load(project, sent)
        load.allow(len(sent) // 3)
        driver = project.headrace(*_RUN)
        project.passes(driver, 1)
        load.allow(len(sent) // 3)
        lost_one: psutil.Process = cluster.executors()[0]
        lost_one.kill()
        lost_one.wait(60)
        load.finish()
        project.passes(driver, len(project.arrivals()))
        end(driver)
        assert project.headrace(*_RUN, "--until-caught-up").wait(PASSES_S_MAX) == 0, project.said()
        _check(project, "delta")
