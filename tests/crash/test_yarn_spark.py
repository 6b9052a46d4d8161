"""A run whose executors YARN starts: the answers are the oracle's."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pyspark
import pytest
from crash_pipeline import append_table, arrivals
from kafka_project import end
from spark_project import PASSES_S_MAX, SparkProject

from servers.hadoop import Hadoop, hadoop, hadoop_here
from servers.jars import ServerMissing
from servers.plugin import server_missing
from servers.spark import SPARK_CONF

_RECORDS = 3_000
_CONF = {
    **SPARK_CONF,
    "spark.master": "yarn",
    # Else the client sends all of Spark's jars, some 400 MB, to where they are already.
    "spark.yarn.jars": f"local:{Path(pyspark.__file__).parent}/jars/*",
    "spark.executor.instances": "1",
    "spark.executor.memory": "512m",
    "spark.yarn.am.memory": "256m",
    "spark.driver.host": "127.0.0.1",
    "spark.driver.bindAddress": "127.0.0.1",
}


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hadoop]:
    try:
        hadoop_here()
    except ServerMissing as missing:
        server_missing(missing)
    with hadoop(yarn=True) as found:
        monkeypatch.setenv("HADOOP_CONF_DIR", str(found.conf))
        # A test of Spark in this process may have left one, and it has no archives to send to executors.
        monkeypatch.delenv("SPARK_HOME", raising=False)
        yield found


@pytest.mark.soak
@pytest.mark.server
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("environment", ["installed", "archive"])
def test_executors_that_yarn_starts_answer_as_the_oracle_does(
    kafka_broker: str, cluster: Hadoop, tmp_path: Path, environment: str
) -> None:
    conf = {**_CONF, "spark.environment": environment}
    sent = arrivals(_RECORDS, seed=17)
    with SparkProject(tmp_path, kafka_broker, conf, 'page.serve = "off"\n') as project:
        project.log.append(append_table(sent))
        driver = project.headrace("run", "--profile", "cluster")
        project.passes(driver, len(sent))
        assert project.headrace("status", "--profile", "cluster").wait(PASSES_S_MAX) == 0
        assert "Spark at yarn: executors 1" in project.said()
        assert end(driver, signal.SIGTERM) == 0, project.said()
        project.check(sent)
