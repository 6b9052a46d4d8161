"""The commerce pipeline into its warehouse, as a user runs it: whole, and killed while it writes."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pytest
from targets import DeltaTarget, ParquetTarget

from headrace.blueprints import make_generator, write_project
from headrace.operate import load_project
from headrace.sql import plan_pipeline
from headrace.store import open_store_readonly
from headrace.testing.replica_runs import sorted_rows
from servers.guard import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.untraced]

WORK_S = 180
EVENTS, HOURS = 2_400, 4
WINDOWS = (
    "event_counts", "user_activity", "purchase_analytics", "device_stats", "location_stats",
    "product_popularity", "product_sales",
)  # fmt: skip

Target = ParquetTarget | DeltaTarget


@pytest.fixture(params=["parquet", "delta"])
def target(request: pytest.FixtureRequest, tmp_path: Path) -> Target:
    folder = tmp_path / "shop" / "warehouse"
    return ParquetTarget(folder) if request.param == "parquet" else DeltaTarget(str(folder))


@pytest.fixture
def project(tmp_path: Path, target: Target) -> Path:
    folder = tmp_path / "shop"
    write_project("commerce", folder)
    path = folder / "headrace.toml"
    text = path.read_text()
    path.write_text(text.replace('kind = "parquet"', f'kind = "{target.replica().kind}"'))
    return folder


def headrace(project: Path, *words: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "headrace", *words, "--profile", "warehouse"],
        cwd=project, capture_output=True, text=True, timeout=WORK_S, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def history(project: Path, part: int = 0, parts: int = 1) -> None:
    """Put some hours of a shop, or a part of them, into the log, as they were recorded then."""
    began = datetime.now(UTC) - timedelta(hours=HOURS + 2) + part * timedelta(hours=HOURS) / parts
    # A copy that comes long behind the record times around it may find its original forgotten: cuts decide.
    made = make_generator("commerce", seed=part, settings=["late_share=0"]).batch(
        began, EVENTS // parts, rate=EVENTS / (HOURS * 3600)
    )
    path = project / "events.ndjson"
    path.write_bytes(b"".join(value + b"\n" for value in made["value"].to_pylist()))
    headrace(project, "produce", "events", str(path), "--record-time", "event")


def count(target: Target) -> int:
    """How many events anybody finds; -1: files were put together just then."""
    try:
        return len(target.rows("events_clean"))
    except duckdb.IOException:
        return -1


def same(project: Path, target: Target) -> None:
    """Every accepted event, window and session that is over is in the warehouse once, as the store has it."""
    ledger = json.loads(headrace(project, "ledger", "--json"))["streams"]["events"]
    keys = {table.name: table.key for table in plan_pipeline(load_project(project).pipeline).tables}
    store = open_store_readonly(project / ".headrace" / "store.duckdb")
    try:
        closed = {table.table: table.closed_through for table in store.status().tables}
        clean = store.query("FROM events_clean", seconds_max=30).to_pylist()
        here = {name: store.query(f"FROM {name}", seconds_max=30).to_pylist() for name in WINDOWS}
        sessions = store.query("FROM sessions", seconds_max=30).to_pylist()
    finally:
        store.close()
    events = target.rows("events_clean")
    assert len(events) == len({row["event_id"] for row in events}) == ledger["outcomes"]["accepted"]
    assert sorted_rows(events) == sorted_rows(clean)
    for name, rows in here.items():
        wanted = [row for row in rows if row["window_end"] <= closed[name]]
        assert len(wanted) > 2
        assert sorted_rows(newest(target.rows(name), keys[name])) == sorted_rows(wanted), (
            f"table '{name}' differs"
        )
    over = [row for row in sessions if row["session_end"] + timedelta(minutes=30) <= closed["sessions"]]
    assert len(over) > 2
    assert sorted_rows(newest(target.rows("sessions"), keys["sessions"])) == sorted_rows(over)


def newest(rows: list[dict[str, Any]], key: tuple[str, ...]) -> list[dict[str, Any]]:
    """The last revision of every window or session; none was sent twice."""
    found: dict[Any, dict[str, Any]] = {}
    for row in sorted(rows, key=lambda row: row["_revision"]):
        known = tuple(row[name] for name in key)
        assert known not in found or found[known]["_revision"] < row["_revision"]
        found[known] = row
    return list(found.values())


def test_the_warehouse_holds_what_was_accepted_and_what_is_over(project: Path, target: Target) -> None:
    history(project)
    headrace(project, "run", "--until-caught-up")
    same(project, target)
    (state,) = json.loads(headrace(project, "replicas", "status", "--json"))
    assert (state["state"], state["lag_epochs"]) == ("stopped", 0)


@pytest.mark.parametrize("target", ["parquet", pytest.param("delta", marks=pytest.mark.soak)], indirect=True)
def test_a_run_that_is_killed_while_it_writes_loses_and_doubles_nothing(
    project: Path, target: Target
) -> None:
    path = project / "headrace.toml"
    text = path.read_text().replace('linger = "1 minute"', 'linger = "10 ms", chunk_rows_max = 400')
    path.write_text(
        text.replace("[profiles.warehouse]", "[profiles.warehouse]\nengine_settings.epoch_rows_max = 400")
    )
    chance, parts = random.Random(11), 3
    for part in range(parts):
        history(project, part, parts)
        before = count(target)
        process = subprocess.Popen(
            [sys.executable, "-m", "headrace", "run", "--profile", "warehouse"],
            cwd=project, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            wait_until(lambda before=before: count(target) > before, what="rows arrive", seconds=WORK_S)
            threading.Event().wait(chance.random() / 4)
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait()
    headrace(project, "run", "--until-caught-up")
    same(project, target)
