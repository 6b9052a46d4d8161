"""Alerts hold when it matters: while a log is away, over a restart, with a clock that is set back."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import pytest

from headrace.errors import TransientError
from headrace.log import Log
from headrace.observe.alerts import Alerts, Notice
from headrace.observe.rules import Limits, Rule, Verdict, default_rules
from headrace.store.history import SampleHistory, labels_text
from headrace.testing import PipelineTest
from observe.observed import START, Facts, observer_of, shop, step, value_of

LOG_UP = labels_text({"stream": "events"})


class Rules:
    """Alerts of a store that gets figures by hand."""

    def __init__(self, test: PipelineTest, *rules: Rule, saved: dict[str, object] | None = None) -> None:
        self.test = test
        self.history = SampleHistory(test.store)
        self.notices: list[Notice] = []
        self.saved: dict[str, object] = {}
        self.alerts = Alerts(
            test.store,
            rules,
            pipeline="shop",
            group=timedelta(seconds=10),
            repeat=timedelta(hours=1),
            saved=saved,  # type: ignore[arg-type]
            save=self._save,
            notify=self.notices.append,
        )

    def _save(self, document: dict[str, object]) -> None:
        self.saved = document

    def live(self, seconds: int, name: str = "", value: float = 0.0, labels: str = LOG_UP) -> None:
        """Let time go by, with a value of a metric every 10 seconds; no name: nothing is observed."""
        for _ in range(0, seconds, 10):
            self.test.clock.move(timedelta(seconds=10))
            if name:
                self.history.add(self.test.clock.time, [(name, labels, value)])
                self.history.write(self.test.clock.time)
            self.alerts.look(self.test.clock.time)

    @property
    def state(self) -> str:
        (found,) = self.alerts.states()
        return str(found["state"])

    def told(self) -> list[str]:
        return [str(one["state"]) for notice in self.notices for one in notice.alerts]


def default(name: str) -> Rule:
    (found,) = [rule for rule in default_rules(Limits()) if rule.name == name]
    return found


@contextmanager
def shop_with(*rules: Rule) -> Iterator[Rules]:
    with PipelineTest(shop(), start=START) as test:
        watched = Rules(test, *rules)
        yield watched
        watched.history.close()


class Away(Facts):
    """A log whose answer lets wait until `go_on` is set, and is then that it is away."""

    def __init__(self, test: PipelineTest) -> None:
        super().__init__(test)
        self.away = True
        self.asked, self.go_on = threading.Event(), threading.Event()

    def log_of(self, stream: str) -> Log | None:
        if not self.away:
            return super().log_of(stream)
        self.asked.set()
        self.go_on.wait(30)
        raise TransientError("the brokers do not answer")


def test_metrics_are_taken_while_a_log_lets_wait_for_its_answer() -> None:
    with PipelineTest(shop(), start=START) as test:
        facts = Away(test)
        observer = observer_of(test, facts)
        ticks = threading.Semaphore(0)
        observer.on_tick.append(lambda now, samples: ticks.release())
        observer.start()
        try:
            assert facts.asked.wait(20)
            assert all(ticks.acquire(timeout=10) for _ in range(2))
        finally:
            facts.go_on.set()
            observer.close()


def test_a_run_need_not_wait_for_a_log_that_is_away_to_stop_observing() -> None:
    with PipelineTest(shop(), start=START) as test:
        facts = Away(test)
        observer = observer_of(test, facts)
        observer.start()
        assert facts.asked.wait(20)
        closing = threading.Thread(target=observer.close)
        closing.start()
        closing.join(6)
        stopped = not closing.is_alive()
        facts.go_on.set()
        closing.join()
        assert stopped


def test_a_log_is_not_up_when_asking_it_fails_for_whatever_reason() -> None:
    class Broken(Facts):
        broken = False

        def log_of(self, stream: str) -> Log | None:
            if self.broken:
                raise ValueError("a bug")
            return super().log_of(stream)

    with PipelineTest(shop(), start=START) as test:
        facts = Broken(test)
        observer = observer_of(test, facts)
        observer.tick()
        assert value_of(observer.samples(), "headrace_log_up", stream="events") == 1
        facts.broken = True
        test.clock.move(timedelta(seconds=10))
        observer.tick()
        assert value_of(observer.samples(), "headrace_log_up", stream="events") == 0
        assert not [one for one in observer.samples() if one.name == "headrace_lag_records"]
        assert [str(error) for error in facts.failures] == ["a bug"]
        observer.close()


def test_what_waited_before_a_log_went_away_is_late_all_the_while() -> None:
    with PipelineTest(shop(), start=START) as test:
        facts = Away(test)
        facts.go_on.set()
        facts.away = False
        observer = observer_of(test, facts)
        test.send("events", {"id": "a", "happened": START})
        step(test, observer)
        test.send("events", {"id": "b", "happened": START})
        observer.tick()
        facts.away = True
        test.clock.move(timedelta(seconds=90))
        observer.tick()
        assert value_of(observer.samples(), "headrace_log_up", stream="events") == 0
        assert value_of(observer.samples(), "headrace_lag_seconds", stream="events") == 90
        observer.close()


def test_an_alert_whose_figures_are_missing_keeps_its_state_for_a_quarter_of_an_hour() -> None:
    with shop_with(default("log_down")) as watched:
        watched.live(80, "headrace_log_up", 0)
        assert watched.state == "firing"
        watched.live(800)
        assert watched.state == "firing"
        assert watched.alerts.states()[0]["problem"] == "its figures are missing"
        watched.live(150)
        assert watched.state == "resolved"
        assert watched.told() == ["firing", "resolved"]


def test_a_restart_does_not_tell_the_end_of_what_still_fires() -> None:
    with shop_with(default("log_down")) as before:
        before.live(80, "headrace_log_up", 0)
        before.test.clock.move(timedelta(hours=1))
        again = Rules(before.test, default("log_down"), saved=before.saved)
        again.live(30)
        again.live(60, "headrace_log_up", 0)
        assert again.state == "firing"
        assert "resolved" not in again.told()
        again.history.close()


def test_a_notice_never_says_pending_and_an_end_is_told_though_it_began_anew_meanwhile() -> None:
    active = [True] * 4 + [False, True, False, False, False]
    rule = Rule(
        name="it",
        severity="critical",
        summary="",
        hold=timedelta(seconds=20),
        check=lambda figures, now: Verdict(active.pop(0)),
    )
    with shop_with(rule) as watched:
        watched.live(90)
        assert watched.told() == ["firing", "resolved"]


@pytest.mark.slow
def test_a_disk_that_is_full_and_stays_so_fires_and_goes_on_firing() -> None:
    with shop_with(default("disk_full")) as watched:
        watched.live(1_500, "headrace_disk_free_bytes", 100e6, "{}")
        assert watched.state == "firing"
        watched.live(1_000, "headrace_disk_free_bytes", 50e9, "{}")
        assert watched.state == "resolved"


def test_a_clock_that_is_set_back_holds_up_neither_alerts_nor_the_minutes_of_the_history() -> None:
    with shop_with(default("log_down")) as watched:
        watched.test.clock.move(timedelta(hours=3))
        watched.live(80, "headrace_log_up", 0)
        watched.test.clock.move(timedelta(hours=-2))
        watched.live(30, "headrace_log_up", 1)
        watched.live(80, "headrace_log_up", 0)
        assert watched.told() == ["firing", "resolved", "firing"]
        minutes = watched.test.store.query("SELECT max(minute) AS last FROM metrics_by_minute")
        (found,) = minutes.to_pylist()
        assert watched.test.clock.time - timedelta(minutes=3) < found["last"] <= watched.test.clock.time
