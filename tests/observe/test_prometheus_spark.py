"""A real Prometheus scrapes the endpoints of a real Spark driver on exported files."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from headrace.operate import load_project
from headrace.operate.export_monitoring import write_prometheus
from servers.guard import GuardedProcess, free_ports, wait_until
from servers.jars import ServerMissing, java
from servers.plugin import server_missing
from servers.prometheus import prometheus_server

PIPELINE = """
import headrace as hr

pipeline = hr.Pipeline("shop")
pipeline.stream("events", schema="id VARCHAR NOT NULL, happened TIMESTAMP NOT NULL", event_time="happened")
pipeline.table("counted", "SELECT count(*) AS n FROM events")
"""
PROFILE = """
[profiles.cluster]
engine = "spark"
spark.master = "local[1]"
spark.driver.host = "127.0.0.1"
spark.ui.enabled = true
spark.ui.port = {page}
metrics.port = {metrics}
streams.events = {{ log = "kafka", brokers = "127.0.0.1:1", topic = "events" }}
"""
DRIVER = """
import sys, threading
from pathlib import Path
from headrace.engine.spark.session import open_session
from headrace.operate import load_project
session = open_session("shop", load_project(Path(sys.argv[1]), profile="cluster").profile.spark.conf)
session.range(10).count()
threading.Event().wait()
"""


@pytest.mark.slow
def test_the_endpoints_of_a_spark_driver_are_up_as_they_were_exported(
    tmp_path: Path, prometheus_here: None
) -> None:
    try:
        java(17)
    except ServerMissing as missing:
        server_missing(missing)
    page, metrics = free_ports(2)
    (tmp_path / "pipeline.py").write_text(PIPELINE)
    (tmp_path / "headrace.toml").write_text(PROFILE.format(page=page, metrics=metrics))
    project = load_project(tmp_path, profile="cluster")
    written = write_prometheus(project, tmp_path, generator=None, spark=None, others=(), alertmanager=None)
    written[0].write_text(written[0].read_text().replace("15s", "1s"))
    driver = GuardedProcess([sys.executable, "-c", DRIVER, str(tmp_path)], output=tmp_path / "driver.out")
    try:
        with prometheus_server(written[0].parent) as prometheus:
            # Nothing runs here but the driver: the run's own metrics are another test's.
            expected = {"headrace": "down", "spark_driver": "up", "spark_executors": "up"}
            wait_until(
                lambda: prometheus.targets() == expected,
                what="both endpoints are up",
                seconds=180,
                process=driver,
            )
            memory = '{__name__=~"metrics_.*_driver_ExecutorMetrics_JVMHeapMemory_Value"}'
            found = "what the driver says of itself"
            wait_until(lambda: (prometheus.value(memory) or 0) > 0, what=found, seconds=60)
            tasks = "sum(metrics_executor_completedTasks_total)"
            wait_until(lambda: (prometheus.value(tasks) or 0) > 0, what="what executors did", seconds=60)
    finally:
        driver.stop()
