"""Every alert of commerce and signups fires alone for its incident, and is resolved when that is over."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa
import pytest

from headrace.blueprints import make_generator
from headrace.blueprints.commerce.pipeline import pipeline as commerce
from headrace.blueprints.signups.pipeline import pipeline as signups
from headrace.declare import Pipeline
from headrace.observe.alerts import Alerts, Notice, rule_of
from headrace.testing import PipelineTest

START = datetime(2026, 3, 1, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
PIPELINES = {"commerce": commerce, "signups": signups}
# Of 60 events in a minute, two that are late by chance would be many.
CALM = {"commerce": ["late_share=0"], "signups": []}
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
        """Let minutes go by with an event a second; without a generator nothing happens in them."""
        for _ in range(minutes):
            if generator is not None:
                events = generator.batch(self.test.clock.time - old, 60, rate=1.0)
                self.test.log(self.test.pipeline.streams[0].name).append(events)
            self.test.advance(MINUTE)
            self.alerts.look(self.test.clock.time)

    def spoiled(self, *settings: str) -> Any:
        return make_generator(self.blueprint, seed=5, settings=[*CALM[self.blueprint], *settings])

    def firing(self) -> set[str]:
        return {each["name"] for each in self.alerts.states() if each["state"] == "firing"}


def nothing_comes(minutes: int) -> Happens:
    return lambda watched: watched.live(minutes)


def spoiled(minutes: int, setting: str) -> Happens:
    return lambda watched: watched.live(minutes, watched.spoiled(setting))


def old(minutes: int, by: timedelta) -> Happens:
    return lambda watched: watched.live(minutes, watched.calm, old=by)


INCIDENTS: dict[tuple[str, str], tuple[Happens, int]] = {
    ("commerce", "no_events"): (nothing_comes(4), 1),
    ("commerce", "delay"): (old(5, by=MINUTE), 1),
    ("commerce", "bad_records"): (spoiled(2, "malformed_share=0.4"), 6),
    ("commerce", "late_records"): (spoiled(2, "late_share=0.3"), 6),
    ("signups", "no_users"): (nothing_comes(12), 1),
    ("signups", "bad_answers"): (spoiled(3, "malformed_share=0.6"), 60),
}
"""What goes wrong, and after how many calm minutes that is over."""


def test_there_is_an_incident_for_every_alert() -> None:
    declared = {(name, alert.name) for name, pipeline in PIPELINES.items() for alert in pipeline.alerts}
    assert set(INCIDENTS) == declared


@pytest.mark.slow
@pytest.mark.parametrize(("blueprint", "alert"), INCIDENTS)
def test_an_alert_fires_alone_for_its_incident_and_is_resolved_afterwards(blueprint: str, alert: str) -> None:
    happens, over_after = INCIDENTS[blueprint, alert]
    pipeline: Pipeline = PIPELINES[blueprint]
    with PipelineTest(pipeline, partitions=3, start=START) as test:
        watched = Watched(test, blueprint)
        watched.live(6, watched.calm)
        assert watched.firing() == set()
        happens(watched)
        assert watched.firing() == {alert}
        watched.live(over_after, watched.calm)
        assert watched.firing() == set()
        told = [(each["name"], each["state"]) for notice in watched.notices for each in notice.alerts]
        assert told == [(alert, "firing"), (alert, "resolved")]
        assert all(each["problem"] == "" for each in watched.alerts.states())
