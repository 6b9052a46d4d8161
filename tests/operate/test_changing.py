"""What was changed at run time holds in the next run, until it is undone or the profile says otherwise."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from headrace.blueprints import write_project
from headrace.engine.local import EngineSettings
from headrace.errors import RefusedError
from headrace.log import APPEND_SCHEMA
from headrace.operate import Runtime, load_project
from headrace.operate.changing import RunSettings, poller_key, rate_key
from headrace.operate.producing import rate_of, serve_rate
from headrace.produce.generator import Rate

pytestmark = pytest.mark.slow


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
        assert "7 %" in summaries(run)
        run.settings.undo()
        assert run.settings.undo().after == "7"
    with opened(folder) as run:
        assert run.settings.changes() == []
        assert (run.settings.value("alerts.late_percent"), run.journal.level) == (before, "info")
        assert not run.settings.changed("alerts.late_percent")
        assert "7 %" not in summaries(run)
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


def test_the_rate_of_a_generator_that_runs_changes_and_ends_with_it(folder: Path) -> None:
    key, rate, later = rate_key("events"), Rate(50.0), Rate(7.0)
    with opened(folder) as run:
        assert run.settings.rates() == {}
        with pytest.raises(RefusedError, match="cannot change"):
            run.settings.change(key, "10")
        data = run.settings._project.data
        with serve_rate(data, "events", rate), serve_rate(data, "events", later):
            assert run.settings.rates() == {"events": "50"}
            assert run.settings.preview(key, "200").effect.endswith("200 events a second, until it ends")
            assert run.settings.change(key, "200").before == "50"
            assert (rate.events_per_second, later.events_per_second) == (200, 7)
            run.settings.change(key, "unlimited")
            assert rate.events_per_second is None
            run.settings.undo()
            assert rate.events_per_second == 200
            for wrong in ("fast", "0", "-1", "nan", "1e12", ""):
                with pytest.raises(RefusedError, match="not a rate"):
                    run.settings.change(key, wrong)
        with pytest.raises(RefusedError, match="does not run any more"):
            run.settings.undo()
        run.settings.change("alerts.late_percent", "7")
    assert "producers" not in (folder / ".headrace" / "settings.json").read_text()


def test_the_rate_of_a_generator_that_was_started_later_is_not_changed_back(folder: Path) -> None:
    key, later = rate_key("events"), Rate(7.0)
    with opened(folder) as run:
        data = run.settings._project.data
        run.settings.change("alerts.late_percent", "7")
        with serve_rate(data, "events", Rate(50.0)):
            run.settings.change(key, "100")
            run.settings.change(key, "200")
            assert [each.after for each in run.settings.changes()] == ["200", "100", "7"]
        with serve_rate(data, "events", later):
            with pytest.raises(RefusedError, match="does not run any more"):
                run.settings.undo()
            assert later.events_per_second == 7
            assert [each.key for each in run.settings.changes()] == ["alerts.late_percent"]
            run.settings.change(key, "8")
        assert [each.key for each in run.settings.changes()] == ["alerts.late_percent"]
        assert run.settings.undo().key == "alerts.late_percent"


def test_a_generator_goes_on_where_its_rate_cannot_be_served(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "taken" / "generate-events.sock").mkdir(parents=True)
    (tmp_path / f"headrace-{os.getuid()}").mkdir(mode=0o755)  # a short place for long names, open to others
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    for data in (tmp_path / "file" / "data", tmp_path / "taken", tmp_path / ("long" * 30)):
        went_on = False
        with serve_rate(data, "events", Rate(50.0)):
            went_on = True
            assert rate_of(data, "events") is None
        assert went_on


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


def append(run: Runtime, records: int) -> None:
    rows = [{"partition": 0, "key": None, "value": b"x" * 100} for _ in range(records)]
    run.logs["events"].append(pa.Table.from_pylist(rows, schema=APPEND_SCHEMA))


def records_of_epochs(run: Runtime) -> list[int]:
    found = []
    while (report := run.engine.step()) is not None:
        found.append(report.records["events"])
    return [records for records in found if records]


def test_the_bounds_of_an_epoch_change_from_the_next_one_on_and_hold_in_the_next_run(folder: Path) -> None:
    rows, size, linger = (
        f"engine_settings.{name}" for name in ("epoch_rows_max", "epoch_bytes_max", "linger")
    )
    with opened(folder) as run:
        before = [run.settings.value(key) for key in (rows, size, linger)]
        assert before == [str(EngineSettings().epoch_rows_max), str(64 * 1024 * 1024), "175 ms"]
        assert run.settings.preview(rows, "10").profile == f"{rows} = 10"
        assert (
            run.settings.preview(rows, "10").effect
            == "the most records of one epoch: 10, from the next epoch on"
        )
        append(run, 25)
        run.settings.change(rows, "10")
        assert records_of_epochs(run) == [10, 10, 5]
        run.settings.change(size, "500 B")
        run.settings.change(linger, "1 s")
        append(run, 8)
    with opened(folder) as run:
        assert [run.settings.value(key) for key in (rows, size, linger)] == ["10", "500", "1 second"]
        assert run.engine._settings.linger.total_seconds() == 1
        small = records_of_epochs(run)
        assert (sum(small), len(small) > 1) == (8, True)
        for _ in range(3):
            run.settings.undo()
        append(run, 25)
        assert records_of_epochs(run) == [25]
        assert [run.settings.value(key) for key in (rows, size, linger)] == before


def test_on_spark_the_bounds_of_an_epoch_need_a_restart_and_memory_everywhere(folder: Path) -> None:
    with opened(folder) as run:
        with pytest.raises(RefusedError, match="cannot change while"):
            run.settings.change("engine_settings.memory_limit", "2 GB")
        spark = replace(run.project, profile=replace(run.project.profile, engine="spark"))
        settings = RunSettings(spark, run.alerts, run.journal, run.engine, run.pollers)
        with pytest.raises(RefusedError, match="cannot change while"):
            settings.change("engine_settings.epoch_rows_max", "10")
        settings.change("alerts.late_percent", "7")


def test_a_poller_that_was_paused_pauses_in_the_next_run_until_it_is_undone(folder: Path) -> None:
    def polls() -> bool:
        return any(each.name == "headrace-poller-events" for each in threading.enumerate())

    polling, key = (
        'polling.events = { url = "http://127.0.0.1:9/", private_addresses = "yes" }',
        poller_key("events"),
    )
    with opened(folder, polling) as run:
        assert run.settings.value(key) == "polling"
        assert run.settings.choices(key) == ("polling", "paused")
        with pytest.raises(RefusedError, match="no such state of a poller"):
            run.settings.change(key, "stopped")
        run.settings.change(key, "paused")
    with opened(folder, polling) as run:
        assert (run.settings.value(key), run.settings.changed(key)) == ("paused", True)
        run.pollers.start()
        try:
            assert not polls()
            run.settings.undo()
            assert polls()
            assert not run.settings.changed(key)
        finally:
            run.pollers.stop()
    with opened(folder) as run, pytest.raises(RefusedError, match="cannot change while"):
        run.settings.change(poller_key("other"), "paused")
