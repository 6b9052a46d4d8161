"""Metrics of a run: counters are the ledger's, and everything that is told is in the table of metrics."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pyarrow as pa
import pytest

from headrace.engine.spark.cluster import ClusterFacts
from headrace.observe import METRICS, Kind, Sample
from headrace.observe.gather import failed_cells
from headrace.observe.metrics import METRICS_BY_NAME, Source
from headrace.testing import PipelineTest
from observe.observed import START, Facts, observer_of, shop, step, value_of

ON_SPARK = ClusterFacts(
    "spark://host:7077",
    "app-1",
    page=None,
    executors=2,
    batch=7,
    seconds={"addBatch": 1.5, "triggerExecution": 2.0},
    records=3_000,
    input_rate=1_000.0,
    processing_rate=1_500.0,
)


def send_of_every_kind(test: PipelineTest) -> None:
    test.send("events", {"id": "a", "happened": START, "amount": 5})
    test.send("events", {"id": "b", "happened": START, "amount": 500})
    test.send("events", {"id": "b", "happened": START, "amount": 501})
    test.send("events", {"id": "c", "happened": START, "amount": -1})
    test.send("events", {"id": "d", "happened": "2026-03-01T11:00:00", "amount": 1})
    test.send("events", {"id": "e", "happened": "2026-03-01T13:00:00", "amount": 1})
    test.send_bytes("events", b"{not json")


def test_counters_are_the_ledgers_also_in_a_process_that_begins_anew() -> None:
    with PipelineTest(shop(), start=START) as test:
        send_of_every_kind(test)
        first = observer_of(test)
        step(test, first)
        first.tick()
        taken = first.samples()
        ledger = test.store.ledger()
        for outcome, records in ledger.outcomes("events").items():
            labels = {"stream": "events", "lane": "main", "outcome": outcome}
            assert value_of(taken, "headrace_records_total", **labels) == records
        assert ledger.outcomes("events") == {
            "accepted": 2, "duplicate": 1, "rejected": 1, "late": 1, "future": 1, "malformed": 1,
        }  # fmt: skip
        assert value_of(taken, "headrace_records_read_total", stream="events") == 7
        assert value_of(taken, "headrace_records_conflicting_total", stream="events") == 1
        assert value_of(taken, "headrace_table_records_total", table="large", result="filtered") == 1
        reason = {"stream": "events", "outcome": "rejected", "reason": "expect:not_negative"}
        assert value_of(taken, "headrace_dead_letters_total", **reason) == 1
        rule = {"stream": "events", "rule": "expect:not_negative"}
        assert value_of(taken, "headrace_rule_checks_total", **rule, result="rejected") == 1
        first.close()
        again = observer_of(test)
        again.tick()
        counters = {metric.name for metric in METRICS if metric.source is Source.LEDGER}

        def counted(samples: list[Sample]) -> dict[str, float]:
            return {f"{s.name}{dict(s.labels)}": s.value for s in samples if s.name in counters}

        assert counted(again.samples()) == counted(taken)
        again.close()


def test_cells_that_fail_are_counted_by_table_and_column_as_the_tables_are() -> None:
    failing = {"table": "most", "column": "amount"}
    with PipelineTest(shop(), start=START) as test:
        send_of_every_kind(test)
        observer = observer_of(test)
        step(test, observer)
        observer.tick()
        assert value_of(observer.samples(), "headrace_failed_cells", **failing) == 1, "500 is no TINYINT"
        test.send("events", {"id": "f", "happened": START, "amount": 501})
        step(test, observer)
        test.clock.move(timedelta(minutes=1))
        observer.tick()
        assert value_of(observer.samples(), "headrace_failed_cells", **failing) == 2
        observer.close()


def test_cells_that_cannot_be_counted_now_are_left_out_and_no_failure() -> None:
    with PipelineTest(shop(), start=START) as test:
        found = {each.name for each in failed_cells(test.store)}
        assert found == {"headrace_failed_cells"}
        with test.store.without_readers():
            assert failed_cells(test.store) == []
        test.store.connection.execute("DROP VIEW failed_cells")  # DuckDB refuses, as it does out of memory
        assert failed_cells(test.store) == []


def test_cells_are_counted_within_the_second_that_a_reader_may_take(monkeypatch: pytest.MonkeyPatch) -> None:
    with PipelineTest(shop(), start=START) as test:
        asked: list[float] = []
        query = test.store.query

        def noted(sql: str, *, seconds_max: float) -> pa.Table:
            asked.append(seconds_max)
            return query(sql, seconds_max=60)  # however slow the machine is

        monkeypatch.setattr(test.store, "query", noted)
        assert failed_cells(test.store)
        assert asked == [1.0]
    assert "over 1 s" in METRICS_BY_NAME["headrace_failed_cells"].help


def test_every_sample_is_in_the_table_with_the_labels_that_it_says() -> None:
    with PipelineTest(shop(), start=START) as test:
        send_of_every_kind(test)
        facts = Facts(test)
        tables = [{"table": "large", "epoch": 0, "rows_sent": 3, "problem": ""}]
        facts.replicas = [
            {"replica": "copy", "state": "following", "epoch": 0, "rows_refused": 1, "tables": tables}
        ]
        observer = observer_of(test, facts)
        observer.alert_states = lambda: [{"name": "many", "severity": "info", "state": "firing"}]
        observer.telemetry_states = lambda: [{"signal": "traces", "sent": 2, "dropped": 1}]
        observer.spark = ON_SPARK.to_json
        step(test, observer)
        observer.tick()
        test.clock.move(timedelta(seconds=1))
        observer.tick()
        seen = set()
        for sample in observer.samples():
            base = sample.name.removesuffix("_count").removesuffix("_sum")
            metric = METRICS_BY_NAME.get(sample.name) or METRICS_BY_NAME[base]
            labels = set(sample.labels) - ({"quantile"} if metric.kind is Kind.HISTOGRAM else set())
            assert labels == set(metric.labels), sample
            seen.add(metric.name)
        assert not facts.failures
        # What the generator's process tells is not told here.
        missing = {m.name for m in METRICS if m.source is not Source.GENERATOR} - seen
        assert missing <= {"headrace_closed_through_timestamp_seconds", "headrace_replica_lag_seconds"}
        observer.close()


def test_what_spark_says_of_a_run_is_among_its_metrics_while_it_says_something() -> None:
    with PipelineTest(shop(), start=START) as test:
        observer = observer_of(test)
        observer.spark = ON_SPARK.to_json
        observer.tick()
        taken = observer.samples()
        assert value_of(taken, "headrace_spark_executors") == 2
        assert value_of(taken, "headrace_spark_batch_seconds", part="addBatch") == 1.5
        assert value_of(taken, "headrace_spark_input_rate") == 1_000
        assert value_of(taken, "headrace_spark_processing_rate") == 1_500
        observer.spark = replace(ON_SPARK, records=0, input_rate=None, processing_rate=None).to_json
        observer.tick()
        assert not [one for one in observer.samples() if one.name.endswith("_rate")]
        observer.spark = lambda: None
        observer.tick()
        assert not [one for one in observer.samples() if one.name.startswith("headrace_spark_")]
        observer.close()


def test_names_follow_prometheus() -> None:
    for metric in METRICS:
        assert metric.name.startswith("headrace_")
        assert metric.name.endswith("_total") == (metric.kind is Kind.COUNTER)
        assert bool(metric.bounds) == (metric.kind is Kind.HISTOGRAM)
        assert list(metric.bounds) == sorted(metric.bounds)
        for unit in ("seconds", "bytes"):
            assert (metric.unit == unit) == (unit in metric.name.split("_")), metric.name
    assert len(METRICS_BY_NAME) == len(METRICS)


def test_a_delay_grows_while_records_wait_and_is_over_when_they_were_read() -> None:
    with PipelineTest(shop(), start=START) as test:
        observer = observer_of(test)
        test.send("events", {"id": "a", "happened": START})
        step(test, observer)
        test.clock.move(timedelta(seconds=10))
        test.send("events", {"id": "b", "happened": "2026-03-01T12:00:10"})
        test.clock.move(timedelta(seconds=20))
        observer.tick()
        assert value_of(observer.samples(), "headrace_lag_records", stream="events") == 1
        assert value_of(observer.samples(), "headrace_lag_seconds", stream="events") == 30
        assert value_of(observer.samples(), "headrace_processing_delay_seconds", stream="events") == 30
        step(test, observer)
        test.clock.move(timedelta(seconds=5))
        observer.tick()
        assert value_of(observer.samples(), "headrace_lag_seconds", stream="events") == 0
        assert value_of(observer.samples(), "headrace_processing_delay_seconds", stream="events") == 20
        for _ in range(61):
            test.clock.move(timedelta(seconds=1))
            observer.tick()
        assert value_of(observer.samples(), "headrace_processing_delay_seconds", stream="events") == 0
        observer.close()


def test_the_watermark_is_the_frontier_less_the_allowed_lateness_and_windows_close_up_to_it() -> None:
    with PipelineTest(shop(), start=START) as test:
        observer = observer_of(test)
        test.send("events", {"id": "a", "happened": START})
        for _ in range(2):
            test.clock.move(timedelta(minutes=5))
            step(test, observer)
        observer.tick()
        taken = observer.samples()
        watermark = value_of(taken, "headrace_watermark_timestamp_seconds", stream="events")
        frontier = value_of(taken, "headrace_frontier_timestamp_seconds", stream="events")
        assert watermark == frontier - timedelta(minutes=1).total_seconds()
        closed = value_of(taken, "headrace_closed_through_timestamp_seconds", table="by_minute")
        assert 0 <= watermark - closed < timedelta(minutes=1).total_seconds()
        observer.close()


def test_latencies_count_every_accepted_record_though_few_are_looked_at() -> None:
    with PipelineTest(shop(), start=START) as test:
        for number in range(1001):
            test.send("events", {"id": f"{number}", "happened": "2026-03-01T11:59:50"})
        test.clock.move(timedelta(seconds=2))
        observer = observer_of(test)
        step(test, observer)
        observer.tick()
        taken = observer.samples()
        for since, seconds in (("record", 2), ("event", 12)):
            labels = {"stream": "events", "since": since}
            assert value_of(taken, "headrace_latency_seconds_count", **labels) == 1001
            assert value_of(taken, "headrace_latency_seconds_sum", **labels) == 1001 * seconds
        assert value_of(taken, "headrace_latency_seconds_count", stream="events", since="read") == 1001
        assert value_of(taken, "headrace_epoch_records_count") == 1
        assert value_of(taken, "headrace_epoch_records_sum") == 1001
        median = value_of(taken, "headrace_latency_seconds", stream="events", since="event", quantile="0.5")
        assert 10 < median <= 30
        observer.close()


def test_what_cannot_be_observed_is_told_once_and_the_rest_goes_on() -> None:
    with PipelineTest(shop(), start=START) as test:

        class Failing(Facts):
            def replica_states(self) -> list[dict[str, object]]:
                raise ValueError("no answer")

        facts = Failing(test)
        observer = observer_of(test, facts)
        for _ in range(3):
            test.clock.move(timedelta(seconds=1))
            observer.tick()
        assert [str(error) for error in facts.failures] == ["no answer"]
        assert value_of(observer.samples(), "headrace_up") == 1
        observer.close()
