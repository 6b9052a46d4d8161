"""On a cluster that gives a run executors as it needs them, and takes them back, answers are the same."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from crash_pipeline import arrivals
from kafka_project import Load, end
from spark_project import PASSES_S_MAX, SparkProject

from servers.guard import wait_until
from servers.spark import spark_cluster

_RECORDS = 3_000


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_executors_that_come_and_go_and_other_shuffle_partitions_change_no_answer(
    kafka_broker: str, tmp_path: Path
) -> None:
    sent = arrivals(_RECORDS, seed=9)
    with spark_cluster() as cluster:
        conf = {
            **cluster.conf,
            "spark.sql.shuffle.partitions": "5",
            "spark.dynamicAllocation.enabled": "true",
            "spark.dynamicAllocation.shuffleTracking.enabled": "true",
            "spark.dynamicAllocation.maxExecutors": "2",
            "spark.dynamicAllocation.executorIdleTimeout": "1s",
            "spark.executor.cores": "1",
        }
        with SparkProject(tmp_path, kafka_broker, conf) as project:
            load = Load(project, sent)
            load.allow(len(sent) // 2)
            driver = project.headrace("run", "--profile", "cluster")
            project.passes(driver, len(sent) // 2)
            wait_until(
                lambda: not cluster.executors(),
                what="a run that waits for records has given its executors back",
                seconds=PASSES_S_MAX,
            )
            load.finish()
            project.passes(driver, len(project.arrivals()))
            assert end(driver, signal.SIGTERM) == 0, project.said()
            project.check(sent)
