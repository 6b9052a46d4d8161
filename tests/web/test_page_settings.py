"""Settings that change while a pipeline runs: what may, what it does, who is told, and the way back."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from page_support import RunningPage, running_page

from headrace.operate.changing import rate_key
from headrace.operate.producing import serve_rate
from headrace.produce.generator import Rate


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningPage]:
    with running_page(tmp_path_factory.mktemp("settings") / "commerce", events_hours=0.02) as made:
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
    assert any("7%" in each["summary"] for each in page.runtime.alerts.states())
    status, back = post(page, "undo")
    assert (status, back["key"]) == (200, "alerts.late_percent")
    assert (shown(page, "alerts.late_percent"), origin(page, "alerts.late_percent")) == (before, "default")
    assert not any("7%" in each["summary"] for each in page.runtime.alerts.states())
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
    titles = [section["title"] for section in page.ask("GET", "/api/settings")[1]["sections"]]
    assert "producers" not in titles


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
