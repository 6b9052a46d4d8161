"""A recorded slice goes through both engines where Spark is a cluster, beside a run that works on it."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest
from crash_pipeline import append_table, arrivals
from kafka_project import end
from spark_project import PASSES_S_MAX, SparkProject

from servers.guard import wait_until
from servers.spark import spark_cluster

_RECORDS = 3_000
_STOPS_S_MAX = 90
"""Less than the two minutes for which a run lets a micro-batch finish."""


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_a_cluster_and_the_local_engine_answer_alike_beside_a_run_that_does_not_notice(
    kafka_broker: str, tmp_path: Path
) -> None:
    sent = arrivals(_RECORDS, seed=12)
    with spark_cluster() as cluster:
        conf = {**cluster.conf, "spark.cores.max": "1"}  # else a run takes all that there are
        with SparkProject(tmp_path, kafka_broker, conf) as project:
            project.log.append(append_table(sent))
            running = project.headrace("run", "--profile", "cluster")
            project.passes(running, 1)
            verify = ("verify", "--profile", "cluster", "--last", "all", "--report", "report.html")
            assert project.headrace(*verify).wait(PASSES_S_MAX) == 0, project.said()
            assert "equal" in project.said()
            assert "<html" in (tmp_path / "report.html").read_text()
            project.passes(running, len(sent))
            assert end(running, signal.SIGTERM) == 0, project.said()
            project.check(sent)
            assert json.loads((tmp_path / ".headrace" / "last_run.json").read_text())["profile"] == "cluster"


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_beside_a_run_that_has_the_whole_cluster_it_says_what_it_waits_for_and_ctrl_c_ends_it_soon(
    kafka_broker: str, tmp_path: Path
) -> None:
    sent = arrivals(_RECORDS, seed=12)
    with (
        spark_cluster(workers=1) as cluster,
        SparkProject(tmp_path, kafka_broker, cluster.conf, 'page.serve = "off"\n') as project,
    ):
        project.log.append(append_table(sent))
        running = project.headrace("run", "--profile", "cluster")
        project.passes(running, len(sent))
        before = len(project.said())  # the run itself may have waited for its first executor
        verify = project.on_a_terminal("verify", "--profile", "cluster", "--last", "all")
        wait_until(
            lambda: "spark.cores.max" in project.said()[before:], what="it says so", seconds=PASSES_S_MAX
        )
        assert "has no executor for this" in project.said()[before:]
        project.press_ctrl_c(verify)
        assert verify.wait(_STOPS_S_MAX) == 130, project.said()
        assert "stopped before the end; nothing was compared" in project.said()
        assert "Traceback" not in project.said()
        project.log.append(append_table(arrivals(2 * _RECORDS, seed=12)[_RECORDS:]))
        project.passes(running, 2 * _RECORDS)  # the run did not notice
        assert end(running, signal.SIGTERM) == 0, project.said()
