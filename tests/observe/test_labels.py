"""Records counted by a stream's label column: a bounded number of values, and the sums are the ledger's."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

import headrace as hr
from headrace.engine.local.labels import LABEL_VALUES_MAX
from headrace.observe.gather import from_ledger
from headrace.testing import PipelineTest

START = "2026-03-01T12:00:00"
SCHEMA = "id VARCHAR NOT NULL, at TIMESTAMP NOT NULL, kind VARCHAR, ok BOOLEAN"


def shop(label: str | None = "kind") -> hr.Pipeline:
    pipeline = hr.Pipeline("shop")
    pipeline.stream("events", SCHEMA, event_time="at", unique="id", label=label, expect={"ok": "ok"})
    pipeline.table("counted", "SELECT count(*) AS n FROM events")
    return pipeline


def send(test: PipelineTest, number: int, kind: str | None, at: str = START, *, ok: bool = True) -> None:
    test.send("events", {"id": f"e{number}", "at": at, "kind": kind, "ok": ok})


def counted(test: PipelineTest) -> dict[tuple[str, str], float]:
    return {
        (each.labels["value"], each.labels["outcome"]): each.value
        for each in from_ledger(test.store.progress)
        if each.name == "headrace_records_by_label_total"
    }


def sums(test: PipelineTest) -> dict[str, float]:
    found: Counter[str] = Counter()
    for (_, outcome), records in counted(test).items():
        found[outcome] += int(records)
    return dict(found)


def test_every_outcome_is_counted_by_the_label_and_the_sums_are_the_ledgers() -> None:
    with PipelineTest(shop(), start=START) as test:
        send(test, 1, "view")
        send(test, 2, "view")
        send(test, 2, "view")
        send(test, 3, "buy")
        send(test, 4, None)
        send(test, 5, "buy", "2026-03-01T11:00:00")
        send(test, 6, "buy", ok=False)
        test.send_bytes("events", b"{not json")
        test.run()
        assert counted(test) == {
            ("view", "accepted"): 2, ("view", "duplicate"): 1, ("buy", "accepted"): 1, ("buy", "late"): 1,
            ("null", "accepted"): 1, ("unread", "rejected"): 1, ("unread", "malformed"): 1,
        }  # fmt: skip
        assert sums(test) == test.ledger().outcomes("events")


def test_values_beyond_the_bound_are_counted_as_other() -> None:
    with PipelineTest(shop(), start=START) as test:
        for number in range(200):
            send(test, number, f"kind {number % 60}")
            if number % 50 == 49:
                test.run()
        names = {value for value, _ in counted(test)}
        assert len(names) == LABEL_VALUES_MAX + 1
        assert "other" in names
        assert sums(test) == test.ledger().outcomes("events") == {"accepted": 200}


@pytest.mark.parametrize("step", ["table:counted", "ledger", "commit"])
def test_a_crash_counts_nothing_twice(step: str) -> None:
    with PipelineTest(shop(), start=START) as test:
        send(test, 1, "view")
        test.run()
        send(test, 2, "view")
        test.crash_at(step)
        test.run()
        assert [name for _, name in test.crashes_seen] == [step]
        assert counted(test) == {("view", "accepted"): 2}


def test_a_stream_without_a_label_has_no_such_series_and_another_label_begins_anew(tmp_path: Path) -> None:
    for label, expected in ((None, {}), ("kind", {("view", "accepted"): 1})):
        with PipelineTest(shop(label), start=START, folder=tmp_path) as test:
            send(test, 1 if label is None else 2, "view")
            test.run()
            assert counted(test) == expected
    with PipelineTest(shop("ok"), start=START, folder=tmp_path) as test:
        send(test, 3, "view")
        test.run()
        assert counted(test) == {("true", "accepted"): 1}
