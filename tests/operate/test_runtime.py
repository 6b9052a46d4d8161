"""A runtime: what it holds while it is open, and what it says about a store that was declared otherwise."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pyarrow as pa
import pytest

from headrace.errors import ProfileError, RefusedError
from headrace.operate import Runtime, connect, load_project, open_log

PIPELINE = """
import headrace as hr

pipeline = hr.Pipeline("shop")
pipeline.stream("events", schema="id VARCHAR NOT NULL, at TIMESTAMP NOT NULL", event_time="at")
pipeline.table("counted", "SELECT count(*) AS n FROM events")
"""
PROFILES = """
[profiles.local]
[profiles.other]
store.path = ".headrace/other.duckdb"
[profiles.wrong]
metrics.alias = { of_nothing = "no_metric" }
"""


def project_in(folder: Path, more: str = "") -> Path:
    (folder / "pipeline.py").write_text(PIPELINE + more)
    (folder / "headrace.toml").write_text(PROFILES)
    return folder


def test_two_stores_of_one_folder_do_not_run_at_once(tmp_path: Path) -> None:
    folder = project_in(tmp_path)
    runtime = Runtime.open(load_project(folder))
    try:
        with pytest.raises(RefusedError, match="is run already, with another store, by process"):
            Runtime.open(load_project(folder, profile="other"))
        with pytest.raises(RefusedError, match="the store is held by process"):
            Runtime.open(load_project(folder))
    finally:
        runtime.close()
    Runtime.open(load_project(folder, profile="other")).close()


def test_a_run_that_cannot_be_put_together_leaves_the_store_to_the_next_one(tmp_path: Path) -> None:
    folder = project_in(tmp_path)
    with pytest.raises(ProfileError, match="no_metric"):
        Runtime.open(load_project(folder, profile="wrong"))
    Runtime.open(load_project(folder)).close()


def test_a_run_writes_into_its_journal_what_is_declared_otherwise(tmp_path: Path) -> None:
    more = 'pipeline.table("doubled", "SELECT id, count(*) AS n FROM events GROUP BY id")\n'
    project = load_project(project_in(tmp_path, more))
    Runtime.open(project).close()
    Runtime.open(load_project(project_in(tmp_path))).close()
    lines = [json.loads(line) for line in project.journal_path.read_text().splitlines()]
    (told,) = [line for line in lines if line["event"] == "declaration changed"]
    assert "table 'doubled' is not declared any more" in told["what"]


def test_a_running_pipeline_is_asked_for_dead_letters_by_address_and_for_its_views(tmp_path: Path) -> None:
    more = 'pipeline.table("doubled", "SELECT 2 * n AS n FROM counted")\n'
    project = load_project(project_in(tmp_path, more))
    runtime = Runtime.open(project)
    try:
        runtime.store.connection.execute(
            "INSERT INTO _headrace.dead_letters "
            "SELECT 'events', 'main', 0, n, NULL, 'malformed', [], NULL, NULL, NULL, NULL, 1 "
            "FROM range(100) a(n)"
        )
        client = connect(project)
        assert client.running
        found = client.dead_letters(
            addresses=[("events", "main", 0, 42), ("events", "main", 7, 1)]
        ).to_pylist()
        assert [letter["offset"] for letter in found] == [42]
        with pytest.raises(RefusedError, match="names a place that no log has"):
            client.dead_letters(addresses=[("events", "main", 0, 2**70)])
        places = client.dead_letters(
            first_rule="", after=("events", "main", 0, 97), columns=["offset", "bytes"], waiting=True
        )
        assert places.to_pylist() == [{"offset": 98, "bytes": 0}, {"offset": 99, "bytes": 0}]
        with pytest.raises(RefusedError, match="list of columns of a dead letter"):
            client.dead_letters(columns=["value) FROM x --"])
        tables = client.status()["tables"]
        assert [(line["table"], line["kind"]) for line in tables] == [
            ("counted", "keyed"),
            ("doubled", "view"),
        ]
    finally:
        runtime.close()


def test_a_run_with_a_new_store_over_a_log_that_was_read_says_that_all_is_computed_again(
    tmp_path: Path,
) -> None:
    project = load_project(project_in(tmp_path))
    log = open_log(project, "events")
    log.append(pa.table({"value": pa.array([b'{"id": "a", "at": "2026-03-01T12:00:00Z"}'] * 3, pa.binary())}))
    log.close()

    def warnings() -> tuple[str, ...]:
        runtime = Runtime.open(project)
        runtime.run(threading.Event(), until_caught_up=True)
        runtime.close()
        return runtime.log_warnings

    assert warnings() == ()
    assert warnings() == ()
    for file in project.store_path.parent.glob(f"{project.store_path.name}*"):
        file.unlink()
    (told,) = warnings()
    assert "stream 'events': a run with another store has read 3 of its records" in told
    assert "store.path" in told
    assert warnings() == ()
