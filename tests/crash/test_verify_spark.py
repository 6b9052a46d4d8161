"""A recorded slice goes through both engines where Spark is a cluster, beside a run that works on it."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest
from crash_pipeline import append_table, arrivals
from kafka_project import end
from spark_project import PASSES_S_MAX, SparkProject

from servers.spark import spark_cluster

_RECORDS = 3_000


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
