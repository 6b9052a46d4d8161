"""Everything that an exported prometheus.yml may name runs for real, and a real Prometheus has it all up."""

from __future__ import annotations

import sys
import uuid
from contextlib import ExitStack
from pathlib import Path

import psycopg
import pytest

from headrace.blueprints import write_project
from headrace.operate import load_project
from headrace.operate.export_monitoring import write_prometheus
from servers.exporters import jmx_agent, node_exporter, postgres_exporter
from servers.guard import GuardedProcess, free_ports, wait_until
from servers.jars import ServerMissing
from servers.kafka import TEST_JVM, kafka_broker
from servers.plugin import server_missing
from servers.prometheus import prometheus_server

PROFILE = """
[profiles.local]
metrics.port = {metrics}
metrics.names = "both"
metrics.generator = "127.0.0.1:{generating}"
metrics.targets = {{ kafka = "{kafka}", postgresql = "{postgresql}", node = "{node}" }}
page.serve = "off"
streams.events = {{ log = "kafka", brokers = "{brokers}", topic = "shop", partitions = 3 }}
replicas.copy = {{ kind = "postgresql", dsn = "{dsn}", tables = ["event_counts"] }}
"""


@pytest.mark.soak
@pytest.mark.timeout(600)
def test_run_generator_broker_database_and_host_are_up_and_tell_of_the_same_records(
    tmp_path: Path, prometheus_here: None, exporters_here: None, kafka_here: None, postgres_server: str
) -> None:
    folder = tmp_path / "shop"
    write_project("commerce", folder)
    name = f"shop_{uuid.uuid4().hex[:10]}"
    with psycopg.connect(postgres_server, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    dsn = f"{postgres_server.rpartition('/')[0]}/{name}"
    metrics, generating = free_ports(2)
    try:
        agent, kafka = jmx_agent(tmp_path)
    except ServerMissing as missing:
        server_missing(missing)
    with ExitStack() as files:
        broker = files.enter_context(kafka_broker(jvm=(*TEST_JVM, agent)))
        said = PROFILE.format(
            metrics=metrics,
            generating=generating,
            kafka=kafka,
            postgresql=files.enter_context(postgres_exporter(dsn)),
            node=files.enter_context(node_exporter()),
            brokers=broker.bootstrap,
            dsn=dsn,
        )
        (folder / "headrace.toml").write_text(said)
        project = load_project(folder)
        nothing = {"generator": None, "spark": None, "others": (), "alertmanager": None}
        written = write_prometheus(project, tmp_path, **nothing)  # type: ignore[arg-type]
        written[0].write_text(written[0].read_text().replace("15s", "1s"))
        for words in (["run"], ["generate", "commerce", "--rate", "50", "--metrics-port", str(generating)]):
            command = [sys.executable, "-m", "headrace", *words, "-C", str(folder)]
            process = GuardedProcess(command, output=tmp_path / f"{words[0]}.out")
            files.callback(process.stop)
        prometheus = files.enter_context(prometheus_server(written[0].parent))
        names = ("headrace", "generator", "kafka", "postgresql", "node")
        wait_until(
            lambda: prometheus.targets() == dict.fromkeys(names, "up"),
            what="all targets are up",
            seconds=180,
            process=process,
        )
        for query in (
            "events_produced_total > 100",
            "sum(events_processed_total) > 100",
            'kafka_server_messagesin_total{topic="shop"} > 100',
            "kafka_server_under_replicated_partitions == 0",
            "pg_up == 1",
            f'sum(pg_stat_database_xact_commit{{datname="{name}"}}) > 0',
            "node_load1",
            "node_memory_MemAvailable_bytes > 0",
            "node_filesystem_avail_bytes > 0",
            "headrace_replica_rows_sent_total > 0",
        ):
            wait_until(
                lambda: bool(prometheus.ask("query", query=query)["result"]),  # noqa: B023
                what=f"rows of {query}",
                seconds=120,
                process=process,
            )
