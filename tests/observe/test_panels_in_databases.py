"""Panels over PostgreSQL and Cassandra, for Grafana: what they ask is asked here, after the blueprint ran."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import psycopg
import pytest
import yaml
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import Dashboard
from psycopg.rows import dict_row

from headrace.blueprints import write_project
from headrace.blueprints.operations.generator import OperationsGenerator
from headrace.blueprints.signups.pipeline import pipeline as signups
from headrace.operate import load_project
from headrace.operate.export_monitoring import write_grafana
from servers.cassandra import connected

pytestmark = pytest.mark.slow

OF_THE_LEDGER = {"Throughput", "Delay until the tables", "Latency", "Outcomes"}
COUNTS = ("users_total", "users_by_gender", "users_by_country", "registrations_by_month", "email_providers",
          "recent_users")  # fmt: skip
SIGNUPS_PROFILE = f"""
[profiles.shown]
streams.users_created = {{ log = "embedded", partitions = 3 }}
[profiles.shown.replicas.users]
kind = "cassandra"
hosts = "${{env:CASSANDRA_HOSTS}}"
keyspace = "KEYSPACE"
columns = "text"
tables = ["created_users"]
[profiles.shown.replicas.counts]
kind = "cassandra"
hosts = "${{env:CASSANDRA_HOSTS}}"
keyspace = "KEYSPACE"
tables = {json.dumps(COUNTS)}
keys = {{ recent_users = "list / registered_date DESC, id" }}
"""


def headrace(folder: Path, profile: str, *words: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "headrace", *words, "--profile", profile],
        cwd=folder, env=dict(os.environ), capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


def exported(folder: Path, profile: str, where: Path) -> tuple[dict[str, Any], dict[str, Any], set[str]]:
    """The dashboards and the data sources by name, and the titles that are left out."""
    written, left = write_grafana(load_project(folder, profile=profile), where, prometheus="http://p:9090")
    dashboards = {each.stem: json.loads(each.read_text()) for each in written if each.suffix == ".json"}
    (provided,) = [each for each in written if each.parent.name == "datasources"]
    sources = yaml.safe_load(provided.read_text())["datasources"]
    return dashboards, {one["uid"]: one for one in sources}, {one.title for one in left}


def assert_the_sdk_reads(dashboard: dict[str, Any]) -> None:
    read = json.loads(json.dumps(Dashboard.from_json(dashboard), cls=JSONEncoder))
    assert [panel["title"] for panel in read["panels"]] == [panel["title"] for panel in dashboard["panels"]]
    for panel, wanted in zip(read["panels"], dashboard["panels"], strict=True):
        assert panel["targets"][0].items() >= wanted["targets"][0].items()


@pytest.fixture
def database(postgres_server: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    name = f"panels_{uuid.uuid4().hex[:10]}"
    with psycopg.connect(postgres_server, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    dsn = postgres_server.removesuffix("postgres") + name
    monkeypatch.setenv("PG_DSN", dsn)
    yield dsn
    with psycopg.connect(postgres_server, autocommit=True) as connection:
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


def test_every_panel_of_operations_over_postgresql_has_rows(tmp_path: Path, database: str) -> None:
    folder = tmp_path / "company"
    write_project("operations", folder)
    # Windows of which some are over: the panels that show the last whole one have rows, too.
    before = OperationsGenerator(seed=3, malformed_share=0.0)
    batch = before.batch(datetime.now(UTC) - timedelta(minutes=4), 1_000, rate=10.0)
    (folder / "before.ndjson").write_bytes(b"".join(value + b"\n" for value in batch["value"].to_pylist()))
    headrace(folder, "postgresql", "produce", "events", "before.ndjson", "--record-time", "event")
    pace = ("--rate", "unlimited", "--count", "2000")
    headrace(folder, "postgresql", "generate", "operations", *pace, "--incident", "errors")
    headrace(folder, "postgresql", "generate", "operations", *pace, "--incident", "malformed")
    headrace(folder, "postgresql", "run", "--until-caught-up")
    dashboards, sources, left = exported(folder, "postgresql", tmp_path)
    dashboard = dashboards["operations-results"]
    assert left == set()
    asked_of_page = dashboards["operations-page"]
    assert {panel["title"] for panel in asked_of_page["panels"]} == OF_THE_LEDGER
    assert_the_sdk_reads(dashboard)
    source = sources["postgresql"]
    assert source["jsonData"]["database"] == database.rpartition("/")[2]
    assert "secret" not in json.dumps(sources)
    with psycopg.connect(database, row_factory=dict_row) as connection:
        for panel in dashboard["panels"]:
            assert panel["datasource"]["uid"] == "postgresql"
            (target,) = panel["targets"]
            before, macro, after = target["rawSql"].partition("$__timeFilter(")
            column, _, rest = after.partition(")")
            shown = (
                f"{column} BETWEEN now() - interval '2 hours' AND now() + interval '1 hour'" if macro else ""
            )
            rows = connection.execute(f"{before}{shown}{rest}".encode()).fetchall()
            assert rows, panel["title"]
            if target["format"] == "time_series":
                first, *names, last = rows[0]
                assert first == "time" and isinstance(rows[0]["time"], datetime)
                assert len(names) <= 1
                assert isinstance(rows[0][last], float | int | Decimal)


@pytest.fixture
def keyspace(cassandra_server: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, Any]]:
    monkeypatch.setenv("CASSANDRA_HOSTS", cassandra_server)
    name = f"panels_{uuid.uuid4().hex[:10]}"
    with connected(cassandra_server) as session:
        yield name, session
        session.execute(f"DROP KEYSPACE IF EXISTS {name}")


def test_every_panel_of_signups_over_cassandra_has_rows(
    tmp_path: Path, keyspace: tuple[str, Any], cassandra_server: str
) -> None:
    name, session = keyspace
    folder = tmp_path / "club"
    write_project("signups", folder)
    with (folder / "headrace.toml").open("a") as file:
        file.write(SIGNUPS_PROFILE.replace("KEYSPACE", name))
    headrace(folder, "shown", "generate", "signups", "--rate", "unlimited", "--count", "200")
    headrace(folder, "shown", "run", "--until-caught-up")
    dashboards, sources, left = exported(folder, "shown", tmp_path)
    assert set(dashboards) == {"signups", "signups-counts"}, "no panel reads the other replica's table"
    dashboard = dashboards["signups-counts"]
    assert left == set()
    assert_the_sdk_reads(dashboard)
    assert {panel["title"] for panel in dashboard["panels"]} == {panel.title for panel in signups.panels}
    assert sources["cassandra-counts"]["url"] == cassandra_server
    for panel in dashboard["panels"]:
        rows = list(session.execute(panel["targets"][0]["target"]))
        assert rows, panel["title"]
        for change in panel["transformations"]:
            given = change["options"]
            if change["id"] == "sortBy":
                assert given["sort"][0]["field"] in rows[0]
            elif change["id"] == "convertFieldType":
                (conversion,) = given["conversions"]
                texts = [row[conversion["targetField"]] for row in rows]
                assert conversion["dateFormat"] == "YYYY-MM"
                assert all(date.fromisoformat(f"{text}-01") for text in texts)
            else:
                assert change["id"] == "limit" and given["limitField"] > 0
