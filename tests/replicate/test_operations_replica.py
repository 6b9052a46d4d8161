"""The operations pipeline into PostgreSQL, as a user runs it: with an incident, on Kafka, and killed."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.rows import dict_row

from headrace.blueprints import write_project
from headrace.store import open_store_readonly
from headrace.testing.replica_runs import sorted_rows
from servers.guard import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.untraced]

WORK_S = 180
TABLES = (
    "service_health",
    "click_traffic",
    "transaction_totals",
    "account_risk",
    "risky_accounts",
    "malformed_by_minute",
)
STAMPS = ("_version", "updated_at", "epoch")


class Company:
    """A project of the blueprint, and the database that its `sql/` has prepared."""

    def __init__(self, folder: Path, dsn: str, profile: str) -> None:
        self.folder = folder
        self.profile = profile
        self._dsn = dsn

    def command(self, *words: str) -> list[str]:
        return [sys.executable, "-m", "headrace", *words, "--profile", self.profile]

    def started(self, *words: str) -> subprocess.Popen[bytes]:
        with (self.folder / "output.txt").open("ab") as output:
            return subprocess.Popen(
                self.command(*words), cwd=self.folder, stdout=output, stderr=output, env=self._environment()
            )

    def headrace(self, *words: str) -> str:
        done = subprocess.run(
            self.command(*words), cwd=self.folder, env=self._environment(),
            capture_output=True, text=True, timeout=WORK_S, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def _environment(self) -> dict[str, str]:
        return {**os.environ, "PG_DSN": self._dsn}

    def generated(self, count: int, seed: int, *words: str) -> str:
        pace = ("--rate", "unlimited", "--count", str(count), "--seed", str(seed))
        return self.headrace("generate", "operations", *pace, *words)

    def rows(self, query: str) -> list[dict[str, Any]]:
        with psycopg.connect(self._dsn, row_factory=dict_row) as connection:
            return connection.execute(query).fetchall()

    def copied(self, table: str) -> int:
        """The epoch up to which a table is copied; 0 when nothing is."""
        found = self.rows(f"SELECT epoch FROM headrace._headrace_cursors WHERE table_name = '{table}'")
        return int(found[0]["epoch"]) if found else 0

    def ledger(self) -> dict[str, Any]:
        told: dict[str, Any] = json.loads(self.headrace("ledger", "--json"))
        return told

    def compare(self) -> None:
        """PostgreSQL holds what the store holds, and both hold what the ledger says."""
        name = "kafka.duckdb" if self.profile == "kafka" else "store.duckdb"
        store = open_store_readonly(self.folder / ".headrace" / name)
        try:
            here = {table: store.query(f'FROM "{table}"', seconds_max=30).to_pylist() for table in TABLES}
        finally:
            store.close()
        for table, rows in here.items():
            there = self.rows(f"SELECT * FROM headrace.{table}")
            assert all(set(STAMPS) <= set(row) for row in there)
            shown = [{name: row[name] for name in row if name not in STAMPS} for row in there]
            assert sorted_rows(shown) == sorted_rows(rows), f"table '{table}' differs"
        ledger = self.ledger()
        assert ledger["balanced"]
        kept = {line["table"]: line["kept"] for line in ledger["tables"]}
        for table, counted in (("service_health", "lines"), ("transaction_totals", "transactions")):
            (total,) = self.rows(f"SELECT sum({counted})::int AS n FROM headrace.{table}")
            assert total["n"] == kept[table]
        read = self.rows("SELECT sum(records)::int AS n FROM (SELECT minute, max(records) AS records "
                         "FROM headrace.malformed_by_minute GROUP BY 1) AS m")  # fmt: skip
        assert read[0]["n"] == ledger["streams"]["events"]["read"]


def prepared(folder: Path, dsn: str, profile: str) -> Company:
    """Write the project into `folder` and run its scripts in a database."""
    write_project("operations", folder)
    with psycopg.connect(dsn, autocommit=True) as connection:
        for script in ("init.sql", "views.sql"):
            connection.execute((folder / "sql" / script).read_text().encode())
    return Company(folder, dsn, profile)


@pytest.fixture
def database(postgres_server: str) -> Iterator[str]:
    name = f"operations_{uuid.uuid4().hex[:10]}"
    with psycopg.connect(postgres_server, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    yield postgres_server.removesuffix("postgres") + name
    with psycopg.connect(postgres_server, autocommit=True) as connection:
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def company(tmp_path: Path, database: str) -> Company:
    return prepared(tmp_path / "company", database, "postgresql")


def test_an_incident_is_seen_in_postgresql_which_holds_what_the_store_holds(company: Company) -> None:
    company.generated(1_500, 1)
    said = company.generated(3_000, 2, "--incident", "errors")
    assert "errors: one service fails" in said
    company.generated(500, 3, "--incident", "malformed")
    company.headrace("run", "--until-caught-up")
    company.compare()
    trouble = said.split("service ")[-1].strip()
    worst = company.rows(
        "SELECT service, max(error_percent) AS p FROM headrace.dashboard_services GROUP BY 1 ORDER BY 2"
    )
    assert worst[-1]["service"] == trouble
    assert worst[-1]["p"] > 5
    assert len(company.rows("SELECT * FROM headrace.dashboard_accounts WHERE failed >= 5")) == 3
    reasons = {row["reason"] for row in company.rows("SELECT reason FROM headrace.dashboard_malformed")}
    assert {"json", "column:event_id", "column:kind", "utf8"} <= reasons
    latency = company.rows("SELECT seconds FROM headrace.dashboard_latency")
    assert latency
    assert all(row["seconds"] >= 0 for row in latency)
    dashboard = json.loads((company.folder / "grafana" / "operations.json").read_text())
    assert len(dashboard["panels"]) >= 10
    for panel in dashboard["panels"]:
        assert panel["datasource"]["uid"] == "postgresql"
        (target,) = panel["targets"]
        query = target["rawSql"].replace('$__timeFilter("time")', "\"time\" > now() - interval '1 day'")
        rows = company.rows(query)
        assert rows, panel["title"]
        if target["format"] == "time_series":  # a time, perhaps a name, and one number
            first, *names, last = rows[0]
            assert (first, names) in (("time", []), ("time", ["metric"])), panel["title"]
            assert isinstance(rows[0][last], float | int | Decimal), panel["title"]


@pytest.mark.soak  # without the incident, tests/blueprints/test_end_to_end.py does it each time
def test_the_same_on_kafka(tmp_path: Path, database: str, kafka_broker: str) -> None:
    company = prepared(tmp_path / "company", database, "kafka")
    path = company.folder / "headrace.toml"
    text = path.read_text()
    topic = f"operations-{uuid.uuid4().hex[:8]}"
    changed = text.replace('"localhost:9092"', f'"{kafka_broker}"').replace(
        'topic = "events"', f'topic = "{topic}"'
    )
    assert kafka_broker in changed and topic in changed
    path.write_text(changed)
    company.generated(3_000, 4, "--incident", "latency")
    company.headrace("run", "--until-caught-up")
    company.compare()
    slow = company.rows("SELECT max(p95_ms) AS p95 FROM headrace.dashboard_services")
    assert slow[0]["p95"] > 5_000


def killed_when(company: Company, table: str, epoch: int) -> None:
    """Run the pipeline, and kill it as soon as a table is copied up to an epoch."""
    process = company.started("run")
    try:
        wait_until(
            lambda: company.copied(table) >= epoch or process.poll() is not None,
            what=f"'{table}' is copied up to epoch {epoch}",
            seconds=WORK_S,
        )
        assert process.poll() is None, (company.folder / "output.txt").read_text()
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()


def killed_at_random(company: Company, kills: int, seed: int) -> None:
    """Kill runs when the copy of a table has come some epochs further, then let one run to the end."""
    chance = random.Random(seed)
    with (company.folder / "headrace.toml").open("a") as file:
        file.write("\n[profiles.postgresql.engine_settings]\nepoch_rows_max = 100\n")
    company.generated(
        400 * kills + 2_000, seed, "--incident", chance.choice(("errors", "latency", "malformed"))
    )
    for _ in range(kills):
        table, further = chance.choice(TABLES), chance.randint(0, 3)
        killed_when(company, table, company.copied(table) + further)
    company.headrace("run", "--until-caught-up")
    company.compare()


@pytest.mark.parametrize("seed", [7])
def test_two_kills_at_random_points_leave_no_trace(company: Company, seed: int) -> None:
    killed_at_random(company, 2, seed)


@pytest.mark.soak
@pytest.mark.parametrize("seed", [1, 2])
def test_twenty_kills_at_random_points_leave_no_trace(company: Company, seed: int) -> None:
    killed_at_random(company, 20, seed)
