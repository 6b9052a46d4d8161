"""`kill -9` of whatever works for a run on Spark: nothing is lost, nothing is counted twice."""

from __future__ import annotations

import json
import random
import secrets
import signal
import subprocess
import sys
import venv
from pathlib import Path

import canonical
import psutil
import psycopg
import pytest
from crash_pipeline import append_table, arrivals
from kafka_project import Load, end
from psycopg.rows import dict_row
from spark_project import PASSES_S_MAX, SparkProject

from servers.guard import wait_until
from servers.spark import SPARK_CONF, SparkCluster, spark_cluster

_RECORDS = 6_000
_SAMPLE = 3_000
_KILLS = 2
_RUN = ("run", "--profile", "cluster")
_REPLICA = 'replicas.results = { kind = "postgresql", dsn = "${env:PG_DSN}", tables = ["*"] }\n'


def _kill(process: psutil.Process) -> None:
    process.kill()
    process.wait(60)


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_executors_that_have_nothing_get_all_they_need_and_may_be_killed(
    kafka_broker: str, tmp_path: Path
) -> None:
    venv.create(tmp_path / "bare", symlinks=True)
    programs = tmp_path / "bare" / "bin"
    without = subprocess.run(
        [programs / "python3", "-Ic", "import headrace"], check=False, capture_output=True
    )
    assert b"No module named 'headrace'" in without.stderr
    environment = {"PATH": f"{programs}:/usr/bin:/bin", "PYTHONPATH": ""}
    sent = arrivals(_SAMPLE, seed=6)
    with spark_cluster(environment=environment) as cluster:
        conf = {**cluster.conf, "spark.environment": "archive"}
        with SparkProject(tmp_path, kafka_broker, conf) as project:
            project.log.append(append_table(sent))
            driver = project.headrace(*_RUN)
            project.passes(driver, 1)
            _kill(cluster.executors()[0])
            project.passes(driver, len(sent))
            assert project.headrace("status", "--profile", "cluster").wait(120) == 0
            assert f"Spark at {cluster.master}: executors " in project.said()
            assert "; processing rate " in project.said()
            assert end(driver, signal.SIGTERM) == 0, project.said()
            project.check(sent)


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_a_driver_killed_at_any_moment_changes_nothing_and_nothing_in_postgresql(
    kafka_broker: str, postgres_server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chance = random.Random(4)
    database = f"killed_{secrets.token_hex(6)}"
    with psycopg.connect(postgres_server, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {database}")
    dsn = f"{postgres_server.rpartition('/')[0]}/{database}"
    monkeypatch.setenv("PG_DSN", dsn)
    with SparkProject(tmp_path, kafka_broker, SPARK_CONF, _REPLICA) as project:
        sent = arrivals(_RECORDS, seed=5)
        project.log.append(append_table(sent))
        for kill in range(_KILLS):
            driver = project.headrace(*_RUN, "--until-caught-up")
            share = len(sent) // (_KILLS + 1)
            project.passes(driver, kill * share + 1 + chance.randrange(share))
            end(driver)
        assert project.headrace(*_RUN, "--until-caught-up").wait(PASSES_S_MAX) == 0, project.said()
        tables = project.check(sent)["tables"]
    with psycopg.connect(dsn, row_factory=dict_row) as connection:
        for name, rows in tables.items():
            columns = ", ".join(f'"{column}"' for column in rows[0])
            copied = connection.execute(f'SELECT {columns} FROM "{name}"').fetchall()
            assert canonical.differences(rows, canonical.rows(copied), name) == []


def _executor_killed(cluster: SparkCluster, project: SparkProject) -> None:
    _kill(cluster.executors()[0])


def _worker_lost(cluster: SparkCluster, project: SparkProject) -> None:
    worker = cluster.workers.pop(0)
    its_executors = worker.executors()
    worker.process.kill()
    psutil.wait_procs(its_executors, PASSES_S_MAX)


@pytest.mark.soak
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("fault", [_executor_killed, _worker_lost])
def test_what_dies_on_a_cluster_under_load_changes_nothing(
    kafka_broker: str, tmp_path: Path, fault: object
) -> None:
    sent = arrivals(_RECORDS, seed=7)
    with (
        spark_cluster() as cluster,
        SparkProject(tmp_path, kafka_broker, cluster.conf) as project,
    ):
        load = Load(project, sent)
        load.allow(len(sent) // 3)
        driver = project.headrace(*_RUN)
        project.passes(driver, 1)
        load.allow(len(sent) // 3)
        assert callable(fault)
        fault(cluster, project)
        project.passes(driver, len(sent) // 2)
        load.finish()
        project.passes(driver, len(project.arrivals()))
        assert end(driver, signal.SIGTERM) == 0, project.said()
        project.check(sent)


def _commits(folder: Path) -> list[Path]:
    """Spark's own words that a micro-batch is done, the last one last."""
    return sorted(folder.glob("**/run-*/commits/[0-9]*"), key=lambda entry: int(entry.name))


@pytest.mark.soak
@pytest.mark.timeout(3000)
def test_a_driver_killed_around_its_commit_on_a_cluster_under_load_changes_nothing(
    kafka_broker: str, tmp_path: Path
) -> None:
    sent = arrivals(_RECORDS, seed=8)
    with (
        spark_cluster() as cluster,
        SparkProject(tmp_path, kafka_broker, cluster.conf) as project,
    ):
        load = Load(project, sent)
        for step in ("action", "ledger", "commit", "publish"):
            load.allow(len(sent) // 5)
            words = (project.topic, project.brokers, step, "1", json.dumps(cluster.conf))
            child = [sys.executable, str(Path(__file__).with_name("spark_child.py")), str(tmp_path), *words]
            with (tmp_path / "output.txt").open("ab") as output:
                died = subprocess.run(child, stdout=output, stderr=output, timeout=PASSES_S_MAX, check=False)
            assert died.returncode == -signal.SIGKILL, project.said()
            wait_until(lambda: not cluster.executors(), what="its executors end", seconds=PASSES_S_MAX)
        load.allow(len(sent) // 10)
        driver = project.headrace(*_RUN)
        project.passes(driver, 9 * len(sent) // 10)
        wait_until(lambda: bool(_commits(tmp_path)), what="Spark notes a micro-batch", seconds=PASSES_S_MAX)
        end(driver)
        _commits(tmp_path)[-1].unlink()  # as if the driver had died before it was written
        load.finish()
        driver = project.headrace(*_RUN, "--until-caught-up")
        assert driver.wait(PASSES_S_MAX) == 0, project.said()
        project.check(sent)
