"""What `headrace export compose` wrote, given to the servers that it is for: they take it."""

from __future__ import annotations

import os
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psycopg
import pytest
from composed import environment_file, exported, project

from servers.prometheus import promtool

pytestmark = pytest.mark.slow


def test_prometheus_takes_its_settings_and_rules(tmp_path: Path, prometheus_here: None) -> None:
    folder = project(tmp_path / "company")
    exported(folder)
    said = promtool("check", "config", "prometheus.yml", folder=folder / "deploy" / "prometheus")
    assert "rules found" in said


@pytest.fixture
def database(postgres_server: str) -> Iterator[str]:
    name = f"prepared_{uuid.uuid4().hex[:10]}"
    with psycopg.connect(postgres_server, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    yield postgres_server.removesuffix("postgres") + name
    with psycopg.connect(postgres_server, autocommit=True) as connection:
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")
        for role in ("headrace_write", "headrace_read"):
            connection.execute(f"DROP ROLE IF EXISTS {role}")


def test_postgresql_takes_its_scripts_and_lets_both_users_in(tmp_path: Path, database: str) -> None:
    folder = project(tmp_path / "company")
    document = exported(folder)
    values = environment_file(folder)
    server = urlsplit(database)
    with psycopg.connect(database) as connection:
        password = connection.info.password
    environment = {
        **os.environ, "PGHOST": str(server.hostname), "PGPORT": str(server.port), "PGPASSWORD": password,
        "POSTGRES_DB": server.path[1:], "WRITER_PASSWORD": values["WRITER_PASSWORD"],
        "READER_PASSWORD": values["READER_PASSWORD"],
    }  # fmt: skip
    mounts = [mount.split(":") for mount in document["services"]["postgresql"]["volumes"]]
    scripts = sorted((target, folder / "deploy" / source) for source, target, *mode in mounts if mode)
    assert [Path(target).name for target, _ in scripts] == ["10-init.sql", "20-views.sql", "30-users.sh"]
    for _, script in scripts:
        psql = ["psql", "-v", "ON_ERROR_STOP=1", "-U", "postgres", "-d", server.path[1:], "-f", str(script)]
        command = psql if script.suffix == ".sql" else ["sh", str(script)]
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, check=False, timeout=60
        )
        assert done.returncode == 0, done.stderr
    dsn = urlsplit(values["PG_DSN"])
    where = f"{server.hostname}:{server.port}{server.path}"
    with psycopg.connect(f"postgresql://{dsn.username}:{dsn.password}@{where}") as writer:
        writer.execute(
            "INSERT INTO headrace.service_health (window_start, service, _version) VALUES (now(), 'a', 5)"
        )
    with psycopg.connect(f"postgresql://headrace_read:{values['READER_PASSWORD']}@{where}") as reader:
        assert reader.execute("SELECT service FROM headrace.dashboard_services").fetchall() == [("a",)]
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            reader.execute("DELETE FROM headrace.service_health")


def test_kafka_takes_its_settings(tmp_path: Path, kafka_here: None) -> None:
    from confluent_kafka.admin import AdminClient

    from servers.guard import GuardedProcess, free_ports, wait_until
    from servers.jars import jars_of, java
    from servers.kafka import TEST_JVM

    given = exported(project(tmp_path / "company"))["services"]["kafka"]["environment"]
    inside, outside, controller = free_ports(3)
    said = "\n".join(
        f"{name.removeprefix('KAFKA_').lower().replace('_', '.')}={value}"
        for name, value in given.items()
        if name != "KAFKA_HEAP_OPTS"
    )
    replaced = {
        "kafka:9092": f"127.0.0.1:{inside}",
        "localhost:${KAFKA_PORT:-29092}": f"127.0.0.1:{outside}",
        "kafka:9093": f"127.0.0.1:{controller}",
        "//:9092": f"//127.0.0.1:{inside}",
        "//:9093": f"//127.0.0.1:{controller}",
        "//:29092": f"//127.0.0.1:{outside}",
        "/var/lib/kafka/data": str(tmp_path / "data"),
    }
    for old, new in replaced.items():
        assert old in said
        said = said.replace(old, new)
    settings = tmp_path / "server.properties"
    settings.write_text(said + "\n")
    program = [java(17), *TEST_JVM, "-cp", f"{jars_of('kafka')}/*"]
    words = [
        *program,
        "kafka.tools.StorageTool",
        "format",
        "-t",
        "5L6g3nShT-eMCtK--X86sw",
        "-c",
        str(settings),
    ]
    subprocess.run(words, check=True, capture_output=True, timeout=60)
    broker = GuardedProcess([*program, "kafka.Kafka", str(settings)], output=tmp_path / "broker.log")
    try:
        for port in (inside, outside):
            admin = AdminClient({"bootstrap.servers": f"127.0.0.1:{port}", "log_level": 0})

            def answers(admin: Any = admin) -> bool:
                try:
                    return len(admin.list_topics(timeout=2).brokers) == 1
                except Exception:  # noqa: BLE001 - not there yet
                    return False

            wait_until(answers, what=f"Kafka answers on {port}", seconds=60, process=broker)
    finally:
        broker.stop()
