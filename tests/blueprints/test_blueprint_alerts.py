"""Every alert of a blueprint fires for its incident, with no other, and is resolved when that is over."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa
import pytest

from headrace.blueprints import make_generator
from headrace.blueprints.commerce.pipeline import pipeline as commerce
from headrace.blueprints.customers.pipeline import pipeline as customers
from headrace.blueprints.operations.pipeline import pipeline as operations
from headrace.blueprints.signups.pipeline import pipeline as signups
from headrace.declare import Pipeline
from headrace.observe.alerts import Alerts, Notice, rule_of
from headrace.testing import PipelineTest
from observe.observed import observer_of, step

START = datetime(2026, 3, 1, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
PIECES = 20
PIPELINES = {"commerce": commerce, "customers": customers, "operations": operations, "signups": signups}
# Of 60 events in a minute, two that are late by chance would be many.
CALM = {"commerce": ["late_share=0"], "customers": [], "operations": [], "signups": []}
RATES = {"commerce": 1, "customers": 20, "operations": 20, "signups": 1}
Happens = Callable[["Watched"], None]


class Watched:
    """A blueprint whose alerts are looked at every minute of virtual time; for them, it is the store."""

    def __init__(self, test: PipelineTest, blueprint: str) -> None:
        self.test = test
        self.blueprint = blueprint
        self.calm: Any = make_generator(blueprint, seed=4, settings=CALM[blueprint])
        self.notices: list[Notice] = []
        rules = [rule_of(alert) for alert in PIPELINES[blueprint].alerts]
        self.alerts = Alerts(
            self,
            rules,
            pipeline=blueprint,
            group=timedelta(0),
            repeat=timedelta(days=1),
            notify=self.notices.append,
        )

    def query(self, sql: str, *, rows_max: int, seconds_max: float) -> pa.Table:
        """Ask the store at the test's time: what an alert calls `now()` is the clock of the machine."""
        now = f"TIMESTAMPTZ '{self.test.clock.time.isoformat()}'"
        return self.test.store.query(sql.replace("now()", now), rows_max=rows_max, seconds_max=seconds_max)

    def live(self, minutes: int, generator: Any = None, *, old: timedelta = timedelta(0)) -> None:
        """Let minutes go by with an event a second, or more; without a generator nothing happens in them."""
        for _ in range(minutes):
            if generator is not None:
                self._append(generator, 60, old)
            self.test.advance(MINUTE)
            self.alerts.look(self.test.clock.time)

    def _append(self, generator: Any, seconds: int, old: timedelta) -> None:
        rate = RATES[self.blueprint]
        events = generator.batch(self.test.clock.time - old, seconds * rate, rate=float(rate))
        self.test.log(self.test.pipeline.streams[0].name).append(events)

    def spoiled(self, *settings: str, incident: str | None = None) -> Any:
        settings = (*CALM[self.blueprint], *settings)
        return make_generator(self.blueprint, seed=5, settings=settings, incident=incident)

    def firing(self) -> set[str]:
        return {each["name"] for each in self.alerts.states() if each["state"] == "firing"}


class Observed(Watched):
    """One whose run works every three seconds, and takes its metrics then as a run does."""

    def __init__(self, test: PipelineTest, blueprint: str) -> None:
        super().__init__(test, blueprint)
        self.works = True
        self.observer = observer_of(test)

    def live(self, minutes: int, generator: Any = None, *, old: timedelta = timedelta(0)) -> None:
        """Let minutes go by."""
        seconds = 60 // PIECES
        for _ in range(minutes):
            for _ in range(PIECES):
                if generator is not None:
                    self._append(generator, seconds, old)
                self.test.clock.move(timedelta(seconds=seconds))
                while self.works and step(self.test, self.observer) is not None:
                    pass
                for _ in range(seconds - 1):
                    self.observer.epochs.tick()
                self.observer.tick()
            self.alerts.look(self.test.clock.time)


def nothing_comes(minutes: int) -> Happens:
    return lambda watched: watched.live(minutes)


def spoiled(minutes: int, setting: str) -> Happens:
    return lambda watched: watched.live(minutes, watched.spoiled(setting))


def incident(minutes: int, name: str) -> Happens:
    return lambda watched: watched.live(minutes, watched.spoiled(incident=name))


def old(minutes: int, by: timedelta) -> Happens:
    return lambda watched: watched.live(minutes, watched.calm, old=by)


def stands_still(minutes: int) -> Happens:
    def happens(watched: Watched) -> None:
        assert isinstance(watched, Observed)
        watched.works = False
        watched.live(minutes, watched.calm)
        watched.works = True

    return happens


@dataclass(frozen=True)
class Incident:
    """What goes wrong, the alerts that fire then, and after how many calm minutes that is over."""

    happens: Happens
    alerts: set[str]
    over_after: int
    observed: bool = False


LONG = {("customers", "a run that stands still"), ("operations", "errors"), ("signups", "malformed")}
INCIDENTS: dict[tuple[str, str], Incident] = {
    ("commerce", "nothing comes"): Incident(nothing_comes(4), {"no_events"}, 1),
    ("commerce", "old events"): Incident(old(5, by=MINUTE), {"delay"}, 1),
    ("commerce", "malformed"): Incident(spoiled(2, "malformed_share=0.4"), {"bad_records"}, 6),
    ("commerce", "late"): Incident(spoiled(2, "late_share=0.3"), {"late_records"}, 6),
    ("customers", "nothing comes"): Incident(nothing_comes(4), {"no_events"}, 1),
    ("customers", "quality"): Incident(incident(2, "quality"), {"low_quality"}, 6),
    ("customers", "malformed"): Incident(incident(2, "malformed"), {"low_quality"}, 6),
    ("customers", "late"): Incident(incident(2, "late"), {"late_records"}, 6),
    ("customers", "a run that stands still"): Incident(stands_still(5), {"slow", "no_events"}, 3, True),
    ("operations", "latency"): Incident(incident(3, "latency"), {"slow_service", "slow_transactions"}, 4),
    ("operations", "errors"): Incident(incident(3, "errors"), {"failing_service", "failing_account"}, 15),
    ("operations", "malformed"): Incident(incident(3, "malformed"), {"malformed_records"}, 4),
    ("operations", "nothing comes"): Incident(nothing_comes(15), {"no_commit"}, 1),
    ("operations", "old events"): Incident(old(2, by=timedelta(seconds=20)), {"slow_pipeline"}, 2, True),
    ("signups", "nothing comes"): Incident(nothing_comes(12), {"no_users"}, 1),
    ("signups", "malformed"): Incident(spoiled(3, "malformed_share=0.6"), {"bad_answers"}, 60),
}


NOTHING = {blueprint: each for (blueprint, what), each in INCIDENTS.items() if what == "nothing comes"}


@pytest.mark.parametrize("blueprint", NOTHING)
def test_a_run_to_which_nothing_ever_came_is_told_of_after_a_while_and_not_as_it_begins(
    blueprint: str,
) -> None:
    with PipelineTest(PIPELINES[blueprint], partitions=3, start=START) as test:
        watched = Watched(test, blueprint)
        watched.alerts.look(test.clock.time)
        assert watched.firing() == set()
        NOTHING[blueprint].happens(watched)
        assert watched.firing() == NOTHING[blueprint].alerts


@pytest.mark.parametrize("blueprint", NOTHING)
def test_a_run_that_begins_again_after_hours_is_given_time_for_what_comes(blueprint: str) -> None:
    with PipelineTest(PIPELINES[blueprint], partitions=3, start=START) as test:
        Watched(test, blueprint).live(1, make_generator(blueprint, seed=4))
        test.clock.move(timedelta(hours=3))
        watched = Watched(test, blueprint)
        watched.alerts.look(test.clock.time)
        watched.live(2, watched.calm)
        assert watched.notices == []


@pytest.mark.parametrize(
    ("blueprint", "silent", "named"),
    [("commerce", 60, 120), ("customers", 60, 120), ("operations", 0, 60), ("signups", 60, 600)],
)
def test_a_silence_is_told_when_it_has_lasted_as_long_as_the_alert_says(
    blueprint: str, silent: int, named: int
) -> None:
    with PipelineTest(PIPELINES[blueprint], partitions=3, start=START) as test:
        watched = Watched(test, blueprint)
        watched.live(2, watched.calm)
        # The last records came a minute ago, and were committed right now.
        while not watched.firing():
            test.clock.move(timedelta(seconds=10))
            watched.alerts.look(test.clock.time)
            silent += 10
        assert named <= silent <= named + 70


def test_there_is_an_incident_for_every_alert() -> None:
    declared = {(name, alert.name) for name, pipeline in PIPELINES.items() for alert in pipeline.alerts}
    assert {(name, alert) for (name, _), each in INCIDENTS.items() for alert in each.alerts} == declared


@pytest.mark.slow
@pytest.mark.parametrize(
    ("blueprint", "what"),
    [pytest.param(*each, marks=pytest.mark.soak if each in LONG else ()) for each in INCIDENTS],
)
def test_alerts_fire_for_their_incident_with_no_other_and_are_resolved_afterwards(
    blueprint: str, what: str
) -> None:
    incident = INCIDENTS[blueprint, what]
    pipeline: Pipeline = PIPELINES[blueprint]
    with PipelineTest(pipeline, partitions=3, start=START) as test:
        watched = (Observed if incident.observed else Watched)(test, blueprint)
        watched.live(2 if incident.observed else 6, watched.calm)
        assert watched.firing() == set()
        incident.happens(watched)
        assert watched.firing() == incident.alerts
        watched.live(incident.over_after, watched.calm)
        assert watched.firing() == set()
        told = [(each["name"], each["state"]) for notice in watched.notices for each in notice.alerts]
        for alert in incident.alerts:
            assert [state for name, state in told if name == alert] == ["firing", "resolved"]
        assert {name for name, _ in told} == incident.alerts
        assert all(each["problem"] == "" for each in watched.alerts.states())
