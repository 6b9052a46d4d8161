"""Settings that change while a pipeline runs: what may, what it does, who is told, and the way back."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from page_support import RunningPage, eventually, running_page

from headrace.engine.local import EngineSettings
from headrace.operate.changing import poller_key, rate_key
from headrace.operate.polling_options import PollingOptions
from headrace.operate.producing import serve_rate
from headrace.produce.generator import Rate

USUAL_ROWS = str(EngineSettings().epoch_rows_max)


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningPage]:
    nobody = {"events": PollingOptions(url="http://127.0.0.1:9/", private_addresses="yes")}
    folder = tmp_path_factory.mktemp("settings") / "commerce"
    with running_page(folder, events_hours=0.02, polling=nobody) as made:
        yield made


def post(page: RunningPage, what: str, key: str = "", value: str = "") -> tuple[int, dict[str, Any]]:
    status, answer, _ = page.ask("POST", f"/api/settings/{what}", {"key": key, "value": value})
    return status, answer


def shown(page: RunningPage, key: str) -> str:
    _, settings, _ = page.ask("GET", "/api/settings")
    lines = [line for section in settings["sections"] for line in section["lines"]]
    [value] = [line["value"] for line in lines if line["changeable"] == key]
    return str(value)


def origin(page: RunningPage, key: str) -> str:
    _, settings, _ = page.ask("GET", "/api/settings")
    lines = [line for section in settings["sections"] for line in section["lines"]]
    return str(next(line["origin"] for line in lines if line["changeable"] == key))


def told(page: RunningPage, event: str) -> list[dict[str, Any]]:
    lines = page.ask("GET", "/api/journal?limit=2000")[1]["lines"]
    return [line["facts"] for line in lines if line["event"] == event]


def test_a_threshold_changes_at_once_and_back_and_both_are_told(page: RunningPage) -> None:
    before = shown(page, "alerts.late_percent")
    status, seen = post(page, "preview", "alerts.late_percent", "7")
    assert (status, seen["before"], seen["after"]) == (200, before, "7")
    assert seen["profile"] == "alerts.late_percent = 7"
    assert "late" in seen["effect"]
    assert shown(page, "alerts.late_percent") == before
    assert post(page, "change", "alerts.late_percent", "7")[0] == 200
    assert (shown(page, "alerts.late_percent"), origin(page, "alerts.late_percent")) == ("7", "run")
    assert any("7 %" in each["summary"] for each in page.runtime.alerts.states())
    status, back = post(page, "undo")
    assert (status, back["key"]) == (200, "alerts.late_percent")
    assert (shown(page, "alerts.late_percent"), origin(page, "alerts.late_percent")) == (before, "default")
    assert not any("7 %" in each["summary"] for each in page.runtime.alerts.states())
    [change] = told(page, "setting changed")
    assert (change["setting"], change["before"], change["after"], change["by"]) == (
        "alerts.late_percent",
        before,
        "7",
        "page",
    )
    assert len(told(page, "setting changed back")) == 1
    assert post(page, "undo")[0] == 422


def test_the_rate_of_a_generator_is_shown_while_it_runs_and_changes(page: RunningPage) -> None:
    rate, key = Rate(50.0), rate_key("events")
    with serve_rate(page.project.data, "events", rate):
        assert (shown(page, key), origin(page, key)) == ("50", "producer")
        assert post(page, "change", key, "200")[0] == 200
        assert (shown(page, key), origin(page, key), rate.events_per_second) == ("200", "run", 200)
        assert post(page, "change", key, "paused")[0] == 200
        assert (shown(page, key), rate.events_per_second) == ("paused", 0)
        assert [post(page, "undo")[0] for _ in range(2)] == [200, 200]
        assert (shown(page, key), origin(page, key), rate.events_per_second) == ("50", "producer", 50)
    assert key not in str(page.ask("GET", "/api/settings")[1])


def test_a_poller_pauses_and_goes_on(page: RunningPage) -> None:
    def polls() -> bool:
        return any(each.name == "headrace-poller-events" for each in threading.enumerate())

    key = poller_key("events")
    assert (shown(page, key), origin(page, key), polls()) == ("polling", "default", True)
    assert (
        post(page, "preview", key, "paused")[1]["effect"] == "nothing is polled for 'events' until it goes on"
    )
    assert polls()
    assert post(page, "change", key, "paused")[0] == 200
    assert (shown(page, key), origin(page, key)) == ("paused", "run")
    eventually(lambda: not polls())
    assert told(page, "setting changed")[-1]["after"] == "paused"
    assert post(page, "undo")[0] == 200
    assert (shown(page, key), origin(page, key), polls()) == ("polling", "default", True)


def test_the_bounds_of_an_epoch_change_and_memory_needs_a_restart(page: RunningPage) -> None:
    key = "engine_settings.epoch_rows_max"
    assert (shown(page, key), origin(page, key)) == (USUAL_ROWS, "default")
    assert post(page, "change", key, "7")[0] == 200
    assert (shown(page, key), origin(page, key)) == ("7", "run")
    read = page.read()
    page.send(b"{}")  # ends the look at the log that was begun before
    eventually(lambda: page.read() > read)
    epoch = page.runtime.store.status().epoch
    page.send(*[b"{}"] * 50)
    eventually(lambda: page.read() > read + 50)

    def sizes() -> list[int]:
        epochs = page.ask("GET", "/api/epochs")[1]
        return [each["records"] for each in epochs if each["epoch"] > epoch and each["records"]]

    eventually(lambda: sum(sizes()) == 50)
    assert max(sizes()) <= 7
    assert post(page, "undo")[0] == 200
    assert shown(page, key) == USUAL_ROWS


def test_a_quieter_journal_writes_no_infos_until_it_is_undone(page: RunningPage) -> None:
    assert post(page, "change", "journal.level", "warning")[0] == 200
    page.runtime.journal.info("unheard")
    assert told(page, "unheard") == []
    assert post(page, "undo")[0] == 200
    page.runtime.journal.info("heard")
    assert len(told(page, "heard")) == 1


def test_the_journal_is_shown_for_a_part_of_time(page: RunningPage) -> None:
    at = datetime.now(UTC).timestamp()
    page.runtime.journal.info("just now")

    def lines(since: float, until: float) -> list[str]:
        _, answer, _ = page.ask("GET", f"/api/journal?since={since}&until={until}")
        return [each["event"] for each in answer["lines"]]

    assert "just now" in lines(at - 60, at + 60)
    assert lines(at - 7200, at - 3600) == []
    found = page.ask("GET", "/api/journal?part=producers")[1]["lines"]
    assert found and {each["event"] for each in found} == {"poller"}
    assert page.ask("GET", "/api/journal?part=nobody")[0] == 422


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("store.path", "elsewhere", "cannot change while the pipeline runs"),
        ("alerts.notify", "x", "cannot change while the pipeline runs"),
        ("alerts.delay", "soon", "duration"),
        ("alerts.delay", "-5 seconds", "duration"),
        ("alerts.bad_percent", "0", "at least 1"),
        ("alerts.bad_percent", "101", "share"),
        ("alerts.bad_percent", "", "whole number"),
        ("alerts.delay", "${file:/etc/passwd}", "no reference"),
        ("journal.level", "loud", "no such level"),
        ("journal.level", "error", "no such level"),
        ("producers.events.poller", "stopped", "no such state"),
        ("producers.other.poller", "paused", "cannot change while the pipeline runs"),
        ("engine_settings.memory_limit", "2 GB", "cannot change while the pipeline runs"),
        ("engine_settings.epoch_rows_max", "0", "at least 1"),
        ("engine_settings.epoch_rows_max", "9" * 30, "must be at most"),
        ("engine_settings.epoch_bytes_max", "9" * 30 + " TB", "more than any machine has"),
        ("engine_settings.linger", "700000 days", "too large"),
        ("alerts.delay", "999999999999 days", "too long"),
    ],
)
def test_what_may_not_be_set_is_refused_and_nothing_changes(
    page: RunningPage, key: str, value: str, words: str
) -> None:
    before = page.ask("GET", "/api/settings")[1]["sections"]
    for what in ("preview", "change"):
        status, answer = post(page, what, key, value)
        assert status == 422
        assert words in answer["error"] + answer["fix"]
        assert "root:" not in str(answer)
    assert page.ask("GET", "/api/settings")[1]["sections"] == before
