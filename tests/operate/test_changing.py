"""What was changed at run time holds in the next run, until it is undone or the profile says otherwise."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from headrace.blueprints import write_project
from headrace.operate import Runtime, load_project


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_project("commerce", tmp_path / "shop")
    return tmp_path / "shop"


@contextmanager
def opened(folder: Path, profile: str = "") -> Iterator[Runtime]:
    if profile:
        (folder / "headrace.toml").write_text(f"[profiles.local]\n{profile}\n")
    runtime = Runtime.open(load_project(folder))
    try:
        yield runtime
    finally:
        runtime.close()


def summaries(runtime: Runtime) -> str:
    return " ".join(each["summary"] for each in runtime.alerts.states())


def journal(folder: Path, event: str) -> list[dict[str, Any]]:
    lines = (folder / ".headrace" / "logs" / "headrace.log").read_text().splitlines()
    return [each for each in map(json.loads, lines) if each["event"] == event]


def test_changes_hold_in_the_next_run_and_are_undone_there(folder: Path) -> None:
    with opened(folder) as run:
        before = run.settings.value("alerts.late_percent")
        run.settings.change("alerts.late_percent", "7")
        run.settings.change("journal.level", "warning")
    with opened(folder) as run:
        assert [each.key for each in run.settings.changes()] == ["journal.level", "alerts.late_percent"]
        assert (run.settings.value("alerts.late_percent"), run.journal.level) == ("7", "warning")
        assert run.settings.changed("alerts.late_percent")
        assert "7%" in summaries(run)
        run.settings.undo()
        assert run.settings.undo().after == "7"
    with opened(folder) as run:
        assert run.settings.changes() == []
        assert (run.settings.value("alerts.late_percent"), run.journal.level) == (before, "info")
        assert not run.settings.changed("alerts.late_percent")
        assert "7%" not in summaries(run)
    assert not (folder / ".headrace" / "settings.json").exists()


def test_a_change_ends_when_the_profile_says_something_else(folder: Path) -> None:
    with opened(folder, "alerts.late_percent = 3\nalerts.bad_percent = 4") as run:
        run.settings.change("alerts.late_percent", "7")
        run.settings.change("alerts.bad_percent", "8")
    with opened(folder, "alerts.late_percent = 9\nalerts.bad_percent = 4") as run:
        assert run.settings.value("alerts.late_percent") == "9"
        assert run.settings.value("alerts.bad_percent") == "8"
    [told] = journal(folder, "change of a setting ended")
    assert (told["setting"], told["value"]) == ("alerts.late_percent", "7")
    assert "says 9" in told["why"]


@pytest.mark.parametrize(
    "written",
    [
        "{",
        '{"local": 7}',
        '{"local": [7, {}, {"key": 1}, {"key": "store.path", "value": "x", "said": "", "at": ""}]}',
        '{"local": [{"key": "alerts.late_percent", "value": "lots", "said": "2", "at": ""}]}',
    ],
)
def test_a_file_that_is_none_of_ours_changes_nothing_and_stops_nothing(folder: Path, written: str) -> None:
    with opened(folder):
        pass
    (folder / ".headrace" / "settings.json").write_text(written)
    with opened(folder) as run:
        assert run.settings.changes() == []
        assert run.settings.value("alerts.late_percent") == "2"
        run.settings.change("alerts.late_percent", "7")
    with opened(folder) as run:
        assert run.settings.value("alerts.late_percent") == "7"


def test_two_profiles_keep_their_changes_apart(folder: Path) -> None:
    (folder / "headrace.toml").write_text("[profiles.local]\n[profiles.other]\n")
    with opened(folder) as run:
        run.settings.change("alerts.late_percent", "7")
    other = Runtime.open(load_project(folder, profile="other"))
    try:
        assert other.settings.changes() == []
        other.settings.change("alerts.late_percent", "8")
    finally:
        other.close()
    with opened(folder) as run:
        assert run.settings.value("alerts.late_percent") == "7"
