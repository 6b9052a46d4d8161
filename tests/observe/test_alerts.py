"""Alerts in virtual time: pending, firing, resolved; told in groups, again while they last."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from headrace.errors import RefusedError
from headrace.observe import Observer
from headrace.observe.alerts import Alerts, Notice, rule_of
from headrace.observe.notify import notice_document, notice_text
from headrace.observe.rules import Limits, Rule, default_rules
from headrace.store.history import SampleHistory, labels_text
from headrace.testing import PipelineTest
from observe.observed import START, Facts, observer_of, shop, step

pytestmark = pytest.mark.slow


class Watched:
    """A pipeline whose alerts are looked at every 5 seconds of virtual time."""

    def __init__(self, test: PipelineTest, rules: list[Rule] | None = None, **options: Any) -> None:
        self.test = test
        self.facts = Facts(test)
        self.observer: Observer = observer_of(test, self.facts)
        self.notices: list[Notice] = []
        self.saved: dict[str, Any] = {}
        self.works = True
        given: dict[str, Any] = {
            "pipeline": "shop",
            "group": timedelta(seconds=10),
            "repeat": timedelta(hours=1),
            "save": self._save,
            "notify": self.notices.append,
        }
        self.alerts = Alerts(test.store, rules or list(default_rules(Limits())), **given | options)

    def _save(self, document: dict[str, Any]) -> None:
        self.saved = document

    def live(self, seconds: int, **records: Any) -> None:
        """Let time go by; `records` are sent every 5 seconds."""
        for _ in range(0, seconds, 5):
            good, bad, late = (range(records.get(kind, 0)) for kind in ("good", "bad", "late"))
            sent = [{"id": f"{self.test.clock.time}{n}", "happened": self.now} for n in good]
            sent += [{"id": f"late{n}", "happened": "2026-03-01T01:00:00"} for n in late]
            if sent:
                self.test.send("events", sent)
            if bad:
                self.test.send_bytes("events", [b"nonsense"] * len(bad))
            if self.works:
                step(self.test, self.observer)
            self.observer.tick()
            self.alerts.look(self.test.clock.time)
            self.test.clock.move(timedelta(seconds=5))

    @property
    def now(self) -> str:
        return self.test.clock.time.replace(tzinfo=None).isoformat()

    def state(self, name: str) -> dict[str, Any]:
        (found,) = [each for each in self.alerts.states() if each["name"] == name]
        return found

    def told(self) -> list[list[tuple[str, str]]]:
        return [[(one["name"], one["state"]) for one in notice.alerts] for notice in self.notices]


def asked(name: str, query: str, hold: int = 0, severity: str = "warning") -> Rule:
    return Rule(
        name=name, query=query, hold=timedelta(seconds=hold), severity=severity, summary="", origin="pipeline"
    )


MANY = "SELECT n > 3 FROM large"


def large(test: PipelineTest, records: int) -> None:
    now = test.clock.time.replace(tzinfo=None).isoformat()
    test.send("events", [{"id": f"{now}{n}", "happened": now, "amount": 1000} for n in range(records)])


def test_an_alert_is_pending_for_its_hold_fires_and_is_resolved() -> None:
    with PipelineTest(shop(), start=START) as test:
        recent = "SELECT count(*) > 0 FROM metrics WHERE name = 'headrace_waiting' AND value = 1 AND time > "
        watched = Watched(
            test, [asked("waits", recent + "(SELECT max(time) FROM metrics) - INTERVAL 4 SECONDS", 30)]
        )
        watched.live(20)
        assert watched.state("waits")["state"] == "ok"
        watched.observer.waiting(True)
        watched.live(25)
        assert watched.state("waits")["state"] == "pending"
        watched.live(20)
        assert watched.state("waits")["state"] == "firing"
        watched.observer.waiting(False)
        watched.live(30)
        assert watched.state("waits")["state"] == "resolved"
        assert watched.told() == [[("waits", "firing")], [("waits", "resolved")]]
        assert [each["to"] for each in reversed(watched.alerts.recent())] == ["pending", "firing", "resolved"]


def test_the_number_that_a_query_gives_is_said_and_of_what_is_true_that_it_is() -> None:
    with PipelineTest(shop(), start=START) as test:
        rules = [
            asked("many", MANY),
            asked("how_many", "SELECT n FROM large"),
            asked("much", "SELECT (sum(n) / 8)::DECIMAL(9,2) FROM large"),
        ]
        watched = Watched(test, rules)
        large(test, 4)
        watched.live(15)
        assert {each["name"]: each["value"] for each in watched.alerts.states()} == {
            "many": None, "how_many": 4.0, "much": 0.5,
        }  # fmt: skip
        (notice,) = watched.notices
        assert [line.strip() for line in notice_text(notice)[1].splitlines() if "value" in line] == [
            "value: 4", "value: 0.5",
        ]  # fmt: skip


def test_of_a_query_a_number_that_is_none_is_not_true_and_an_infinite_one_is_told_without_it() -> None:
    with PipelineTest(shop(), start=START) as test:
        share = "SELECT count(*) FILTER (n < 0) / CAST(count(*) AS DOUBLE) FROM large WHERE n < 0"
        rules = [
            asked("share", share),
            asked("none", "SELECT CAST('nan' AS FLOAT)"),
            asked("least", "SELECT CAST('-inf' AS DOUBLE)"),
            asked("most", "SELECT CAST('inf' AS DOUBLE)"),
        ]
        watched = Watched(test, rules)
        watched.live(20)
        assert [each["state"] for each in watched.alerts.states()] == ["ok", "ok", "firing", "firing"]
        assert watched.told() == [[("least", "firing"), ("most", "firing")]]
        (notice,) = watched.notices
        json.dumps(notice_document(notice), allow_nan=False)
        assert [one["value"] for one in watched.alerts.states()] == [None] * 4


def test_one_that_is_over_before_its_hold_tells_nobody() -> None:
    with PipelineTest(shop(), start=START) as test:
        watched = Watched(test, [asked("few", "SELECT n < 1 FROM large", hold=30)])
        watched.live(15)
        large(test, 1)
        watched.live(60)
        assert watched.state("few")["state"] == "ok"
        assert watched.told() == []


def test_changes_that_come_together_are_told_in_one_notice() -> None:
    with PipelineTest(shop(), start=START) as test:
        rules = [asked("many", MANY), asked("more", "SELECT n > 4 FROM large", severity="critical")]
        watched = Watched(test, rules)
        large(test, 4)
        watched.live(5)
        large(test, 4)
        watched.live(20)
        assert watched.told() == [[("many", "firing"), ("more", "firing")]]
        critical = watched.notices[0].at_least("critical")
        assert [one["name"] for one in critical.alerts] == ["more"]


def test_what_lasts_is_told_again_and_what_is_silenced_is_not() -> None:
    with PipelineTest(shop(), start=START) as test:
        watched = Watched(test, [asked("many", MANY)], repeat=timedelta(seconds=60))
        large(test, 4)
        watched.live(140)
        assert watched.told() == [[("many", "firing")]] * 2
        watched.alerts.silence("many", test.clock.time + timedelta(seconds=100))
        watched.live(100)
        assert len(watched.told()) == 2
        assert watched.state("many")["state"] == "firing"
        watched.live(30)
        assert len(watched.told()) == 3
        with pytest.raises(RefusedError, match="there is no alert 'mani'; did you mean 'many'"):
            watched.alerts.silence("mani", test.clock.time)


def test_a_run_that_begins_anew_does_not_tell_again_what_still_fires() -> None:
    with PipelineTest(shop(), start=START) as test:
        watched = Watched(test, [asked("many", MANY)])
        large(test, 4)
        watched.live(20)
        again = Watched(test, [asked("many", MANY)], saved=watched.saved)
        again.live(60)
        assert again.state("many")["state"] == "firing"
        assert again.told() == []


def test_a_query_that_cannot_be_asked_keeps_its_state_and_says_why() -> None:
    with PipelineTest(shop(), start=START) as test:
        watched = Watched(
            test, [asked("wrong", "SELECT n, n FROM large"), asked("gone", "SELECT * FROM nothing")]
        )
        watched.live(10)
        assert watched.state("wrong")["problem"] == "the query gives not one value, but several"
        assert "nothing" in watched.state("gone")["problem"]
        assert {each["state"] for each in watched.alerts.states()} == {"ok"}


def test_bad_and_late_records_fire_while_the_good_ones_do_not() -> None:
    with PipelineTest(shop(), start=START) as test:
        watched = Watched(test)
        watched.live(120, good=10)
        assert {each["state"] for each in watched.alerts.states()} == {"ok"}
        watched.live(60, good=10, bad=2)
        assert watched.state("bad_share")["state"] == "firing"
        assert watched.state("bad_share")["subject"] == "events"
        assert 0.05 < watched.state("bad_share")["value"] < 0.2
        assert watched.state("late_share")["state"] == "ok"
        watched.live(60, good=10, late=2)
        assert watched.state("late_share")["state"] == "firing"
        watched.live(330, good=10)
        assert watched.state("bad_share")["state"] == watched.state("late_share")["state"] == "resolved"


def test_a_threshold_that_changes_counts_from_the_next_look_on() -> None:
    with PipelineTest(shop(), start=START) as test:
        watched = Watched(test)
        watched.live(300, good=9, bad=1)
        assert watched.state("bad_share")["state"] == "firing"
        rules = default_rules(Limits(bad_share=0.5))
        watched.alerts.retune([rule for rule in rules if rule.name == "bad_share"])
        watched.live(10, good=9, bad=1)
        assert watched.state("bad_share")["state"] == "resolved"
        assert "50 %" in watched.state("bad_share")["summary"]


def test_a_run_that_commits_nothing_while_records_wait_is_seen() -> None:
    with PipelineTest(shop(), start=START) as test:
        watched = Watched(test)
        watched.live(90, good=1)
        assert watched.state("not_committing")["state"] == "ok"
        watched.works = False
        watched.live(45, good=1)
        assert watched.state("not_committing")["state"] == "ok"
        watched.live(30, good=1)
        assert watched.state("not_committing")["state"] == "firing"
        watched.live(120, good=1)
        assert watched.state("delay")["state"] == "firing"
        watched.works = True
        watched.live(30, good=1)
        assert watched.state("not_committing")["state"] == "resolved"
        assert watched.told()[0] == [("not_committing", "firing")]


def test_a_replica_that_is_refused_is_named() -> None:
    with PipelineTest(shop(), start=START) as test:
        watched = Watched(test)
        watched.facts.replicas = [
            {"replica": "copy", "state": "refused", "epoch": 0, "rows_refused": 0, "tables": []},
            {"replica": "other", "state": "following", "epoch": 0, "rows_refused": 0, "tables": []},
        ]
        watched.live(15)
        assert watched.state("replica_refused")["state"] == "firing"
        assert watched.state("replica_refused")["subject"] == "copy"
        assert watched.state("replica_refused")["value"] is None
        assert "\n  about: copy\n" in notice_text(watched.notices[0])[1]


def test_a_declared_alert_becomes_a_rule_with_its_words() -> None:
    pipeline = shop()
    pipeline.alert("many", MANY, hold="2 minutes", severity="critical", summary="Too many.")
    rule = rule_of(pipeline.alerts[0])
    assert (rule.name, rule.hold, rule.severity, rule.summary, rule.query) == (
        "many", timedelta(minutes=2), "critical", "Too many.", MANY,
    )  # fmt: skip


# By rule: the series, whose it is, its values by the second where the rule holds, and where it just does not.
SURROUNDINGS: dict[str, tuple[str, str, Callable[[int], float], Callable[[int], float]]] = {
    "restarting": ("headrace_restarts_total", "", lambda s: s // 240, lambda s: s // 900),
    "lag_rising": ("headrace_lag_records", "stream", lambda s: 10_001 + s, lambda s: 20_000 - s),
    "replica_behind": ("headrace_replica_lag_seconds", "replica", lambda s: 301, lambda s: 300),
    "log_down": ("headrace_log_up", "stream", lambda s: 0, lambda s: 1),
    # Full in 10,000 s and less at first; or, in the calm, in 20,000 s at least.
    "disk_full": ("headrace_disk_free_bytes", "", lambda s: 1e9 - 1e5 * s, lambda s: 1e9 - 4e4 * s),
    "clock_skew": ("headrace_clock_skew_seconds", "stream", lambda s: 31, lambda s: 30),
}


@pytest.mark.parametrize("bad", [True, False])
def test_what_goes_wrong_around_a_run_fires_its_alert_and_what_just_does_not_fires_none(bad: bool) -> None:
    with PipelineTest(shop(), start=START) as test:
        kept = SampleHistory(test.store)
        rules = [rule for rule in default_rules(Limits()) if rule.name in SURROUNDINGS]
        alerts = Alerts(
            test.store, rules, pipeline="shop", group=timedelta(seconds=10), repeat=timedelta(hours=1)
        )
        for second in range(0, 1_500, 30):
            now = test.clock.time + timedelta(seconds=second)
            found = []
            for name, whose, wrong, calm in SURROUNDINGS.values():
                labels = labels_text({whose: "it"} if whose else {})
                found.append((name, labels, float((wrong if bad else calm)(second))))
            kept.add(now, found)
            kept.write(now)
            alerts.look(now)
        states = {each["name"]: each["state"] for each in alerts.states()}
        assert states == dict.fromkeys(SURROUNDINGS, "firing" if bad else "ok")
        named = {each["name"]: each["subject"] for each in alerts.states() if bad}
        assert named == {name: "it" if line[1] else "" for name, line in SURROUNDINGS.items() if bad}
        values = {each["name"]: each["value"] for each in alerts.states()}
        assert (values["log_down"], values["clock_skew"]) == (None, 31 if bad else 30)
        kept.close()
