"""Records counted by a stream's label column: a bounded number of values, and the sums are the ledger's.

The counter that older dashboards know has the column itself as a label; what has no named value is `other`.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

import headrace as hr
from headrace.engine.local.labels import LABEL_VALUES_MAX
from headrace.observe.exposition import Exposition
from headrace.observe.gather import from_ledger
from headrace.testing import PipelineTest
from observe.observed import value_of

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


def known(test: PipelineTest) -> list[tuple[dict[str, str], float]]:
    """Return the labels and values of the counter that dashboards know, as a scraper reads them."""
    exposition = Exposition(lambda: from_ledger(test.store.progress), list, known=True)
    return [
        (sample.labels, sample.value)
        for family in text_string_to_metric_families(exposition.text()[0].decode())
        for sample in family.samples
        if sample.name == "events_processed_total"
    ]


def processed(test: PipelineTest, label: str = "kind") -> dict[str, float]:
    assert all(labels.keys() == {"stream", label} for labels, _ in known(test))
    found = {labels[label]: value for labels, value in known(test)}
    assert len(found) == len(known(test)), "one series for each value"
    assert sum(found.values()) == test.ledger().read("events")
    return found


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


def test_the_counter_that_dashboards_know_has_the_label_column_and_its_sum_is_what_was_read() -> None:
    with PipelineTest(shop(), start=START) as test:
        for number, kind in enumerate(("view", "view", "buy", None, "other", "null", "unread")):
            send(test, number, kind)
        send(test, 0, "view")
        send(test, 7, "view", ok=False)
        test.send_bytes("events", b"{not json")
        test.run()
        assert processed(test) == {"view": 3, "buy": 1, "other": 6}
        own = value_of(list(from_ledger(test.store.progress)), "headrace_records_read_total", stream="events")
        assert own == 10


def test_values_beyond_the_bound_are_other_in_the_counter_that_dashboards_know() -> None:
    with PipelineTest(shop(), start=START) as test:
        for number in range(200):
            send(test, number, f"kind {number % 60}")
        test.run()
        found = processed(test)
        assert len(found) == LABEL_VALUES_MAX + 1
        assert found["other"] > 0


def test_that_counter_goes_on_where_it_was_after_a_crash_and_in_the_next_run(tmp_path: Path) -> None:
    with PipelineTest(shop(), start=START, folder=tmp_path) as test:
        send(test, 1, "view")
        send(test, 2, None)
        test.run()
        send(test, 3, "view")
        test.crash_at("commit")
        test.run()
        assert test.crashes_seen
        assert processed(test) == {"view": 2, "other": 1}
    with PipelineTest(shop(), start=START, folder=tmp_path) as test:
        assert processed(test) == {"view": 2, "other": 1}


def test_what_was_read_before_there_was_a_label_is_other(tmp_path: Path) -> None:
    with PipelineTest(shop(None), start=START, folder=tmp_path) as test:
        send(test, 1, "view")
        test.run()
        assert known(test) == [({"stream": "events"}, 1)]
    with PipelineTest(shop(), start=START, folder=tmp_path) as test:
        send(test, 2, "view")
        test.run()
        assert processed(test) == {"view": 1, "other": 1}


@pytest.mark.parametrize(
    ("column", "label"),
    [("stream", "column_stream"), ("kind-of", "kind_of"), ("größe", "gr__e"), ("éé", "column___")],
)
def test_a_column_that_cannot_be_a_label_as_it_is_goes_by_another_name(column: str, label: str) -> None:
    pipeline = hr.Pipeline("shop")
    schema = f'id VARCHAR NOT NULL, at TIMESTAMP NOT NULL, "{column}" VARCHAR'
    pipeline.stream("events", schema, event_time="at", label=column)
    pipeline.table("counted", "SELECT count(*) AS n FROM events")
    with PipelineTest(pipeline, start=START) as test:
        test.send("events", {"id": "1", "at": START, column: "view"})
        test.run()
        assert processed(test, label) == {"view": 1, "other": 0}
