"""The commerce pipeline into PostgreSQL, as a user runs it: whole, killed, the server away, told to stop."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from targets import PostgresTarget

from headrace.blueprints import write_project
from headrace.store import open_store_readonly
from headrace.testing.replica_runs import sorted_rows
from servers.guard import wait_until
from servers.postgresql import PASSWORD, PostgresServer
from servers.postgresql import postgres_server as own_server

pytestmark = [pytest.mark.slow, pytest.mark.untraced]

PROFILE = """
[profiles.results]
engine_settings.epoch_rows_max = 2000
replicas.results = { kind = "postgresql", dsn = "${env:PG_DSN}" }
"""
WORK_S = 120


@pytest.fixture(scope="module")
def server(postgres_here: None) -> Iterator[PostgresServer]:
    with own_server() as server:
        yield server


@pytest.fixture
def target(server: PostgresServer, request: pytest.FixtureRequest) -> PostgresTarget:
    name = f"shop_{abs(hash(request.node.name)) % 10**9}"
    with PostgresTarget(server.dsn()).connect() as connection:
        connection.execute(f"CREATE DATABASE {name}")
    return PostgresTarget(server.dsn(name), server)


@pytest.fixture
def project(tmp_path: Path, target: PostgresTarget) -> Path:
    folder = tmp_path / "shop"
    write_project("commerce", folder)
    with (folder / "headrace.toml").open("a") as file:
        file.write(PROFILE)
    return folder


def command(*words: str) -> list[str]:
    return [sys.executable, "-m", "headrace", *words, "--profile", "results"]


def environment(target: PostgresTarget) -> Mapping[str, str]:
    return {**os.environ, "PG_DSN": target.dsn}


def headrace(project: Path, target: PostgresTarget, *words: str, code: int = 0) -> str:
    done = subprocess.run(
        command(*words), cwd=project, capture_output=True, text=True, timeout=WORK_S, check=False,
        env=environment(target),
    )  # fmt: skip
    said = done.stdout + done.stderr
    assert done.returncode == code, said
    assert PASSWORD not in said and PASSWORD.replace(" ", "%20") not in said
    return said


def started(project: Path, target: PostgresTarget, *words: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        command("run", *words), cwd=project, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        env=environment(target),
    )  # fmt: skip


def state_left(project: Path) -> str:
    """What the replica's thread has written down last; cheaper to ask again and again than the command."""
    path = project / ".headrace" / "replicas" / "results.json"
    return str(json.loads(path.read_text())["state"]) if path.exists() else ""


def states(project: Path, target: PostgresTarget) -> dict[str, Any]:
    (state,) = json.loads(headrace(project, target, "replicas", "status", "--json"))
    return dict(state)


def generated(project: Path, target: PostgresTarget, count: int, seed: int) -> None:
    words = ("generate", "commerce", "--rate", "unlimited", "--count", str(count), "--seed", str(seed))
    headrace(project, target, *words)


def same(project: Path, target: PostgresTarget) -> None:
    """Every table and view of the store, and the target, hold the same rows."""
    store = open_store_readonly(project / ".headrace" / "store.duckdb")
    try:
        names = [table.table for table in store.status().tables]
        here = {name: store.query(f'FROM "{name}"', seconds_max=30).to_pylist() for name in names}
    finally:
        store.close()
    assert len(names) >= 9
    for name, rows in here.items():
        assert sorted_rows(target.rows(name)) == sorted_rows(rows), f"table '{name}' differs"


@pytest.mark.soak
def test_a_run_that_is_killed_in_the_middle_leaves_no_trace(project: Path, target: PostgresTarget) -> None:
    generated(project, target, 6_000, 2)
    for rows in (1, 2_000):
        process = started(project, target)
        try:
            wait_until(
                lambda rows=rows: target.count("events_clean") >= rows, what="rows arrive", seconds=WORK_S
            )
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait()
    headrace(project, target, "run", "--until-caught-up")
    same(project, target)


def test_a_server_that_goes_and_comes_back_holds_nothing_up(project: Path, target: PostgresTarget) -> None:
    generated(project, target, 2_000, 3)
    process = started(project, target)
    try:
        wait_until(lambda: target.count("events_clean") > 0, what="rows arrive", seconds=WORK_S)
        assert target.server is not None
        target.server.stop()
        try:
            generated(project, target, 2_000, 4)
            wait_until(
                lambda: (
                    json.loads(headrace(project, target, "ledger", "--json"))["streams"]["events"]["read"]
                    == 4_000
                ),
                what="the pipeline goes on",
                seconds=WORK_S,
            )
            wait_until(lambda: state_left(project) == "waiting", what="waits", seconds=WORK_S)
            state = states(project, target)
            assert state["lag_epochs"] > 0
            assert state["lag_seconds"] > 0
            assert "PostgreSQL" in state["why"]
        finally:
            target.server.start()
        wait_until(
            lambda: state_left(project) == "following" and states(project, target)["lag_epochs"] == 0,
            what="it catches up",
            seconds=WORK_S,
        )
        began = time.monotonic()
        process.send_signal(signal.SIGINT)
        assert process.wait(WORK_S) == 0
        assert time.monotonic() - began < 10, "a run stops within seconds, whatever its replicas do"
    finally:
        process.kill()
        process.wait()
    headrace(project, target, "run", "--until-caught-up")
    same(project, target)


def test_a_replica_is_paused_resumed_and_rebuilt_from_the_command_line(
    project: Path, target: PostgresTarget
) -> None:
    generated(project, target, 500, 5)
    headrace(project, target, "replicas", "pause", "results")
    headrace(project, target, "run", "--until-caught-up")
    assert target.rows("events_clean") == []
    assert states(project, target)["state"] == "paused"
    headrace(project, target, "replicas", "resume", "results")
    headrace(project, target, "run", "--until-caught-up")
    same(project, target)
    with target.connect() as connection:
        connection.execute("DELETE FROM device_stats")
        connection.execute("UPDATE event_counts SET _version = 1, event_type = event_type || ' of old'")
    headrace(project, target, "replicas", "rebuild", "results")
    headrace(project, target, "run", "--until-caught-up")
    same(project, target)
    assert "no replica 'reslts'; did you mean 'results'" in headrace(
        project, target, "replicas", "pause", "reslts", code=2
    )


def test_a_wrong_password_does_not_stop_the_pipeline_and_is_said(
    project: Path, target: PostgresTarget, server: PostgresServer
) -> None:
    generated(project, target, 500, 6)
    wrong = PostgresTarget(server.dsn(password="nobody knows"))
    said = headrace(project, wrong, "run", "--until-caught-up", code=1)
    assert "password authentication failed" in said
    assert "nobody" not in said
    state = states(project, wrong)
    assert state["state"] == "refused"
    assert state["lag_epochs"] > 0
    assert json.loads(headrace(project, wrong, "ledger", "--json"))["streams"]["events"]["read"] == 500


def test_postgresql_holds_what_the_store_holds_in_the_tables_that_export_sql_has_made(
    project: Path, target: PostgresTarget
) -> None:
    text = headrace(project, target, "export", "sql")
    with target.connect() as connection:
        connection.execute(text)
    generated(project, target, 2_000, 7)
    headrace(project, target, "run", "--until-caught-up")
    same(project, target)
    state = states(project, target)
    assert (state["state"], state["lag_epochs"], state["lag_seconds"]) == ("stopped", 0, 0)
