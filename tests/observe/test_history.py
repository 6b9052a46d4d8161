"""The history of metrics in the store: by the second, then by the minute, then gone; full after a restart."""

from __future__ import annotations

from datetime import timedelta

import pytest

from headrace.observe import history
from headrace.store import history as stored
from headrace.store.history import SampleHistory
from headrace.testing import PipelineTest
from headrace.testing.clock import instant
from observe.observed import START, observer_of, shop, step

NOON = instant(START)


def rows_of(test: PipelineTest, relation: str) -> list[dict[str, object]]:
    return test.store.query(f"SELECT * FROM {relation} ORDER BY ALL").to_pylist()


def test_a_chart_is_full_after_a_restart() -> None:
    with PipelineTest(shop(), start=START) as test:
        observer = observer_of(test)
        for number in range(30):
            test.send("events", {"id": f"{number}", "happened": START})
            step(test, observer)
            observer.tick()
            test.clock.move(timedelta(seconds=1))
        observer.close()
        test.restart()
        (series,) = history(
            test.store, ["headrace_records_read_total"], since=NOON, until=test.clock.time, rates=False
        )
        assert series.labels == {"stream": "events"}
        assert series.values == [float(n) for n in range(1, 31)]
        (rate,) = history(test.store, ["headrace_records_read_total"], since=NOON, until=test.clock.time)
        assert rate.values == [1.0] * 29


def test_seconds_become_minutes_and_both_are_let_go() -> None:
    with PipelineTest(shop(), start=START) as test:
        kept = SampleHistory(test.store)
        for second in range(180):
            at = NOON + timedelta(seconds=second)
            kept.add(at, [("headrace_up", "{}", float(second % 60))])
            if second % 5 == 4:
                kept.write(at)
        minutes = rows_of(test, "metrics_by_minute")
        assert [(row["value"], row["least"], row["greatest"]) for row in minutes] == [(59, 0, 59)] * 2
        assert len(rows_of(test, "metrics")) == 180
        kept.close()
        # Another process goes on where this one ended: the third minute is folded once, from what it wrote.
        again = SampleHistory(test.store)
        again.write(NOON + timedelta(minutes=3, seconds=1))
        again.write(NOON + timedelta(minutes=3, seconds=6))
        assert len(rows_of(test, "metrics_by_minute")) == 3
        again.write(NOON + timedelta(hours=2, minutes=2, seconds=30))
        assert [row["value"] for row in rows_of(test, "metrics")] == [float(n) for n in range(30, 60)]
        again.write(NOON + timedelta(days=14, minutes=2))
        assert len(rows_of(test, "metrics_by_minute")) == 1
        again.close()


def test_more_series_than_may_be_are_left_out_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stored, "SERIES_MAX", 2)
    with PipelineTest(shop(), start=START) as test:
        kept = SampleHistory(test.store)
        for _ in range(2):
            kept.add(NOON, [(name, "{}", 1.0) for name in ("a", "b", "c")])
        kept.write(NOON)
        assert kept.dropped == 1
        assert {row["name"] for row in rows_of(test, "metrics")} == {"a", "b"}
        kept.close()


def test_a_counter_that_began_anew_and_a_pause_make_no_false_rates() -> None:
    with PipelineTest(shop(), start=START) as test:
        kept = SampleHistory(test.store)
        points = [(0, 100.0), (1, 110.0), (2, 5.0), (100, 25.0), (101, 26.0)]
        for second, value in points:
            kept.add(NOON + timedelta(seconds=second), [("headrace_retries_total", "{}", value)])
        kept.write(NOON)
        (series,) = history(
            test.store, ["headrace_retries_total"], since=NOON, until=NOON + timedelta(minutes=2)
        )
        assert series.values == [10.0, 5.0, None, 1.0]
        kept.close()


def test_a_long_time_is_shown_by_the_minute_with_few_points() -> None:
    with PipelineTest(shop(), start=START) as test:
        kept = SampleHistory(test.store)
        for minute in range(300):
            kept.add(NOON + timedelta(minutes=minute), [("headrace_up", "{}", float(minute))])
        kept.write(NOON + timedelta(minutes=300))
        (series,) = history(
            test.store, ["headrace_up"], since=NOON, until=NOON + timedelta(minutes=300), points_max=100
        )
        assert len(series.values) == 100
        assert series.values[-1] == 299
        kept.close()


def test_writing_the_history_waits_for_no_epoch_and_breaks_none() -> None:
    with PipelineTest(shop(), start=START) as test:
        kept = SampleHistory(test.store)
        test.send("events", {"id": "a", "happened": START})
        with test.store.transaction():
            test.store.connection.execute("UPDATE _headrace.progress SET body = body")
            kept.add(NOON, [("headrace_up", "{}", 1.0)])
            kept.write(NOON)
            assert len(rows_of(test, "metrics")) == 1
        test.engine.step()
        kept.close()
