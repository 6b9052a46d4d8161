"""Every blueprint, embedded, on Kafka and on Spark, into its real store, which holds what the oracle says.

Each runs as a user runs it: the project that `headrace new` writes, its own profile, the command line. The
test changes addresses and names only, because the servers are shared.
"""

from __future__ import annotations

import json
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import canonical
import pytest
from batch_oracle import answer
from blueprint_oracles import ORACLES
from oracle_model import Arrival
from signups_beside import USERS, Beside, beside_signups
from stores_of_blueprints import STORES, Place

from headrace.blueprints import make_generator, write_project
from headrace.log.between import read_between
from headrace.operate import load_project
from headrace.operate.runtime import open_log
from headrace.sql import plan_pipeline
from headrace.store import open_store_readonly
from headrace.testing.replica_runs import sorted_rows

pytestmark = [pytest.mark.slow, pytest.mark.untraced, pytest.mark.timeout(900)]

WORK_S = 600
RECORDS = 1_500
LENGTH = timedelta(hours=2)
SESSION_GAP = timedelta(minutes=30)
SERVERS = {
    "postgresql": "postgres_server",
    "elasticsearch": "elasticsearch_server",
    "cassandra": "cassandra_server",
}
TABLES = {
    "commerce": (
        "event_counts", "user_activity", "purchase_analytics", "sessions", "device_stats", "location_stats",
        "product_popularity", "product_sales", "events_clean",
    ),
    "customers": ("category_metrics", "customer_activity", "city_sales", "quality"),
    "operations": (
        "service_health", "click_traffic", "transaction_totals", "account_risk", "risky_accounts",
        "malformed_by_minute",
    ),
    "signups": (
        "created_users", "users_total", "users_by_gender", "users_by_country", "registrations_by_month",
        "email_providers", "recent_users",
    ),
}  # fmt: skip
COUNTED = {
    "commerce": ("events_clean", None),
    "customers": ("customer_activity", "events"),
    "operations": ("transaction_totals", "transactions"),
    "signups": ("created_users", None),
}
"""Where the store's counts must equal the ledger's: a table, and the column to add up; None: its rows."""


@dataclass(frozen=True)
class Cell:
    """One blueprint in one of its profiles, and the store that the profile copies to."""

    blueprint: str
    profile: str
    store: str


def cell(blueprint: str, profile: str, store: str, *, sample: bool = False) -> Any:
    marks = () if sample else (pytest.mark.soak,)
    return pytest.param(Cell(blueprint, profile, store), id=f"{blueprint}-{profile}-{store}", marks=marks)


CELLS = [  # embedded, other tests run each of them every time, with an incident or a kill on the way
    cell("commerce", "warehouse", "parquet"),
    cell("commerce", "kafka", "parquet", sample=True),
    cell("commerce", "kafka", "delta"),
    cell("commerce", "cluster", "parquet"),
    cell("commerce", "cluster", "delta"),
    cell("customers", "elasticsearch", "elasticsearch"),
    cell("customers", "kafka", "elasticsearch", sample=True),
    cell("customers", "cluster", "elasticsearch"),
    cell("operations", "postgresql", "postgresql"),
    cell("operations", "kafka", "postgresql", sample=True),
    cell("operations", "cluster", "postgresql"),
    cell("signups", "cassandra", "cassandra"),
    cell("signups", "kafka", "cassandra", sample=True),
    cell("signups", "cluster", "cassandra", sample=True),
]


class Run:
    """A project of the blueprint whose addresses are those of the test's servers."""

    def __init__(self, of: Cell, folder: Path, place: Place, api: Beside) -> None:
        self.cell, self.folder, self.place, self.api = of, folder, place, api

    def headrace(self, *words: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "headrace", *words, "--profile", self.cell.profile],
            cwd=self.folder, capture_output=True, text=True, timeout=WORK_S, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def produce(self) -> None:
        """Put two hours of history into the log, as they were recorded then; users are polled."""
        if self.cell.blueprint == "signups":
            self.headrace("poll", "users_created", "--pages", str(USERS // 100))
            return
        began = datetime.now(UTC) - 2 * LENGTH
        rate = RECORDS / LENGTH.total_seconds()
        incident = "errors" if self.cell.blueprint == "operations" else None  # for accounts at risk
        made = make_generator(self.cell.blueprint, seed=5, incident=incident).batch(began, RECORDS, rate=rate)
        path = self.folder / "events.ndjson"
        path.write_bytes(b"".join(value + b"\n" for value in made["value"].to_pylist()))
        self.headrace("produce", "events", str(path), "--record-time", "event")

    def arrivals(self, stream: str) -> list[Arrival]:
        """What the log holds, as the oracle takes it."""
        log = open_log(load_project(self.folder, profile=self.cell.profile), stream)
        try:
            ranges = log.partitions()
            ends = {each.partition: each.end for each in ranges}
            parts = read_between(log, {each.partition: each.start for each in ranges}, ends)
            rows = [row for part in parts for row in part.to_pylist()]
        finally:
            log.close()
        addresses = ("partition", "offset", "record_time")
        return [Arrival(stream, *(row[name] for name in addresses), self._json(row["value"])) for row in rows]

    def _json(self, value: bytes) -> bytes:
        return self.api.json_of(value) if self.cell.blueprint == "signups" else value

    def check(self) -> None:
        """The ledger, the tables of Headrace's store and those of the real store say what the oracle says."""
        oracle = ORACLES[self.cell.blueprint]
        wanted = answer([oracle.stream], oracle.tables, self.arrivals(oracle.stream.name))
        ledger = json.loads(self.headrace("ledger", "--json"))
        assert ledger["balanced"]
        assert ledger["streams"][oracle.stream.name]["outcomes"] == wanted.outcomes(oracle.stream.name)
        here, closed = self._store()
        for name, rows in wanted.tables.items():
            columns = list(rows[0])
            given = [{column: row[column] for column in columns} for row in here[name]]
            different = canonical.differences(canonical.rows(rows), canonical.rows(given), name)
            assert not different, "\n".join(different[:20])
        for name, rows in here.items():
            copied = over(name, rows, closed) if self.place.closed_only else rows
            assert copied, f"nothing is to be seen in '{name}'"
            assert sorted_rows(self._there(name)) == sorted_rows(copied), f"table '{name}' differs"
        table, column = COUNTED[self.cell.blueprint]
        there = self._there(table)
        counted = len(there) if column is None else sum(int(row[column]) for row in there)
        assert counted == next(line["kept"] for line in ledger["tables"] if line["table"] == table)

    def _store(self) -> tuple[dict[str, list[dict[str, Any]]], dict[str, Any]]:
        """Rows of each table of Headrace's store, and through when it is closed."""
        store = open_store_readonly(load_project(self.folder, profile=self.cell.profile).store_path)
        try:
            names = TABLES[self.cell.blueprint]
            here = {name: store.query(f'FROM "{name}"', seconds_max=60).to_pylist() for name in names}
            return here, {table.table: table.closed_through for table in store.status().tables}
        finally:
            store.close()

    def _there(self, table: str) -> list[dict[str, Any]]:
        """Rows of the real store; of a window that was corrected, the last revision."""
        rows = self.place.rows(table)
        if not self.place.closed_only:
            return rows
        plan = plan_pipeline(load_project(self.folder, profile=self.cell.profile).pipeline)
        (key,) = (each.key for each in plan.tables if each.name == table)
        if not key:
            return rows
        last = {
            tuple(row[name] for name in key): row for row in sorted(rows, key=lambda row: row["_revision"])
        }
        return list(last.values())


def over(table: str, rows: list[dict[str, Any]], closed: dict[str, Any]) -> list[dict[str, Any]]:
    """Rows whose window is closed; all of a table without windows."""
    if table == "sessions":
        return [row for row in rows if row["session_end"] + SESSION_GAP <= closed[table]]
    return [row for row in rows if "window_end" not in row or row["window_end"] <= closed[table]]


@pytest.fixture
def run(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Run]:
    of: Cell = request.param
    on_kafka = of.profile in ("kafka", "cluster")
    broker = request.getfixturevalue("kafka_broker") if on_kafka else "no broker"
    server = request.getfixturevalue(SERVERS[of.store]) if of.store in SERVERS else ""
    folder = tmp_path / of.blueprint
    with ExitStack() as undo:
        api = undo.enter_context(beside_signups(tmp_path))
        place = undo.enter_context(STORES[of.store](server, folder))
        environment = {**place.environment, "BROKERS": broker, "SPARK_MASTER": "local[2]"}
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        write_project(of.blueprint, folder)
        path = folder / "headrace.toml"
        text = path.read_text()
        for old, new in {**place.changed, **api.addresses, "localhost:9092": broker}.items():
            text = text.replace(old, new)
        topic = f"{of.blueprint}-{uuid.uuid4().hex[:10]}"
        times = "log" if of.blueprint == "signups" else "header"
        for name in ("streaming-events", "customer-events", "events", "users_created"):
            text = text.replace(f'topic = "{name}"', f'topic = "{topic}", record_time = "{times}"')
        path.write_text(text)
        place.prepare(folder)
        yield Run(of, folder, place, api)


@pytest.mark.server
@pytest.mark.parametrize("run", CELLS, indirect=True)
def test_the_store_holds_what_the_oracle_says_and_as_much_as_the_ledger(run: Run) -> None:
    run.produce()
    run.headrace("run", "--until-caught-up")
    run.check()
