"""What tells Prometheus of a host, a database and a broker: exporters of their own, on the loopback."""

from __future__ import annotations

import shutil
import tempfile
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import httpx
import psycopg

from servers.guard import GuardedProcess, free_ports, wait_until
from servers.jars import ServerMissing, jars_of

__all__ = ["exporter_program", "jmx_agent", "node_exporter", "postgres_exporter"]

# Names and units are ours to choose: a broker's own are names of Java beans.
_BROKER = """
lowercaseOutputName: true
rules:
  - pattern: kafka.server<type=BrokerTopicMetrics, name=(.+)PerSec, topic=(.+)><>Count
    name: kafka_server_$1_total
    type: COUNTER
    labels: { topic: "$2" }
  - pattern: kafka.server<type=ReplicaManager, name=UnderReplicatedPartitions><>Value
    name: kafka_server_under_replicated_partitions
"""


def exporter_program(name: str) -> str:
    """Return the path of Debian's `prometheus-NAME-exporter`. Raises ServerMissing."""
    program = f"prometheus-{name}-exporter"
    found = shutil.which(program)
    if found is None:
        raise ServerMissing(f"{program} is not installed: apt-get install {program}")
    return found


@contextmanager
def node_exporter() -> Iterator[str]:
    """Run one that tells of processors, memory and disks; give its HOST:PORT."""
    wanted = ("cpu", "filesystem", "loadavg", "meminfo")
    words = ["--collector.disable-defaults", *(f"--collector.{each}" for each in wanted)]
    with _exporter("node", words) as address:
        yield address


@contextmanager
def postgres_exporter(dsn: str) -> Iterator[str]:
    """Run one that tells of a PostgreSQL without TLS, as a user who may only watch; give its HOST:PORT."""
    name = f"watcher_{uuid.uuid4().hex}"  # its password, too: the exporter takes none with spaces
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(f"CREATE ROLE {name} LOGIN PASSWORD '{name}' IN ROLE pg_monitor")
        where = f"{connection.info.host}:{connection.info.port}/{connection.info.dbname}"
        try:
            environment = {"DATA_SOURCE_NAME": f"postgresql://{name}:{name}@{where}?sslmode=disable"}
            with _exporter("postgres", [], environment) as address:
                yield address
        finally:
            connection.execute(f"DROP ROLE {name}")


def jmx_agent(folder: Path) -> tuple[str, str]:
    """Return an option for a broker's JVM that lets it tell of itself, and the HOST:PORT where it does.

    Raises ServerMissing.
    """
    (jar,) = jars_of("jmx").glob("*.jar")
    (port,) = free_ports(1)
    rules = folder / "jmx.yml"
    rules.write_text(_BROKER)
    address = f"127.0.0.1:{port}"
    return f"-javaagent:{jar}={address}:{rules}", address


@contextmanager
def _exporter(name: str, words: Sequence[str], environment: Mapping[str, str] | None = None) -> Iterator[str]:
    (port,) = free_ports(1)
    folder = Path(tempfile.mkdtemp(prefix=f"headrace-{name}-exporter-"))
    command = [exporter_program(name), f"--web.listen-address=127.0.0.1:{port}", *words]
    process = GuardedProcess(command, output=folder / "exporter.log", environment=environment)

    def answers() -> bool:
        try:
            return httpx.get(f"http://127.0.0.1:{port}/metrics", timeout=10).status_code == 200
        except httpx.TransportError:
            return False

    try:
        wait_until(answers, what=f"the exporter of {name} answers", seconds=60, process=process)
        yield f"127.0.0.1:{port}"
    finally:
        process.stop()
        shutil.rmtree(folder, ignore_errors=True)
