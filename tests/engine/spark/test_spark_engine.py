"""What the Spark engine sees to around its queries: its notes, its pace, the topics, the versions."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

import headrace as hr
from headrace.engine.local import EngineSettings
from headrace.engine.spark import SparkSettings
from headrace.engine.spark.engine import SparkEngine
from headrace.engine.spark.pace import ROWS_AT_FIRST, rows_allowed, slow_down
from headrace.engine.spark.session import SparkWorkerError, error_of_spark
from headrace.engine.spark.task import Task, as_option, of_option
from headrace.errors import IntegrityError, RefusedError, TransientError
from headrace.log import open_embedded_log
from headrace.log.backoff import BackOff, Waiting
from headrace.log.protocol import Log
from headrace.sql import plan_pipeline
from headrace.sql.plan import PipelinePlan
from headrace.store import Store
from log.kafka_streams import delete_topic, make_topic, ones, opened, topic_name


def planned() -> PipelinePlan:
    pipeline = hr.Pipeline("counted")
    pipeline.stream("events", schema="n BIGINT NOT NULL")
    pipeline.table("total", "SELECT count(*) AS records FROM events")
    return plan_pipeline(pipeline)


@contextmanager
def engine(folder: Path, log: Log | None = None, **settings: Any) -> Iterator[SparkEngine]:
    """An engine of which no query runs, so that Spark is not started."""
    plan = planned()
    used = log or open_embedded_log(folder / "log.sqlite", "events", durable=False)
    store = Store.open(folder / "store.duckdb", plan, identities={"events": used.identity})
    found = SparkEngine(plan, {"events": used}, store, spark=SparkSettings(**settings))
    try:
        yield found
    finally:
        found.close()
        store.close()
        if log is None:
            used.close()


def fresh_checkpoint(one: SparkEngine) -> str:
    return one._notes.fresh_checkpoint("8e1f", None)


def test_checkpoints_of_runs_before_are_taken_away_and_nothing_of_others(tmp_path: Path) -> None:
    place = tmp_path / "shared"
    with engine(tmp_path, checkpoint=str(place)) as one:
        first = Path(fresh_checkpoint(one).removeprefix("file://"))
        (first / "offsets").mkdir(parents=True)
        strangers = (place / "run-of-another", place / "headrace-another" / "run-1", first.parent / "notes")
        for folder in strangers:
            folder.mkdir(parents=True)
        second = Path(fresh_checkpoint(one).removeprefix("file://"))
        assert second.parent == first.parent != place
        assert second != first
        assert not first.exists()
        assert all(folder.exists() for folder in strangers)
    with engine(tmp_path) as one:
        assert Path(fresh_checkpoint(one).removeprefix("file://")).parent == one._notes.folder
    with engine(tmp_path, checkpoint="s3a://bucket/notes/") as one:
        assert fresh_checkpoint(one).startswith("s3a://bucket/notes/headrace-")


def test_after_a_query_that_failed_micro_batches_have_half_as_many_records(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with engine(tmp_path) as one:
        lost = SparkWorkerError("Spark lost a worker: it was too large for it")
        monkeypatch.setattr(one, "_until", lambda *_: lost)
        back_off = BackOff(lambda pause: None)
        for share in (2, 4):
            with pytest.raises(SparkWorkerError):
                one._query(threading.Event(), False, back_off)
            assert rows_allowed(one._notes.pace, 1_000_000) == ROWS_AT_FIRST // share
        stop = threading.Event()
        stop.set()
        one._query(stop, False, back_off)  # what a stop takes along is no failure
        assert rows_allowed(one._notes.pace, 1_000_000) == ROWS_AT_FIRST // 4
        for _ in range(20):
            slow_down(one._notes.pace)
        assert rows_allowed(one._notes.pace, 1_000_000) == 1_000


@pytest.mark.parametrize("stopped", [True, False])
def test_a_query_that_is_stopped_while_brokers_are_away_does_not_say_that_they_are_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stopped: bool
) -> None:
    stop, tries = threading.Event(), iter([TransientError("no answer"), TransientError("no answer"), None])

    def until(*_: object) -> BaseException | None:
        found = next(tries)
        if found is None and stopped:
            stop.set()
        return found

    told: list[Waiting | None] = []
    with engine(tmp_path) as one:
        monkeypatch.setattr(one, "_session", object())
        monkeypatch.setattr(one, "_until", until)
        one.run(stop, until_caught_up=True, on_waiting=told.append)
    assert [pause is None for pause in told] == [False, False, *([] if stopped else [True])]


def test_records_of_a_topic_that_was_made_again_after_the_batch_was_planned_are_not_taken(
    kafka_broker: str, tmp_path: Path
) -> None:
    topic = topic_name()
    with opened(kafka_broker, topic, partitions=1) as log, engine(tmp_path, log) as one:
        log.append(ones(3))
        batches = one._reader.read(one._positions(), rows_max=10, wait=timedelta(seconds=10))
        assert batches[0].slice.records.num_rows == 3
        one._require_same_topics(batches)
        delete_topic(kafka_broker, topic)
        make_topic(kafka_broker, topic)
        with pytest.raises(IntegrityError, match="deleted"):
            one._require_same_topics(batches)


def test_executors_of_another_version_than_the_driver_s_stop_the_run_and_name_both() -> None:
    import duckdb

    task = Task("run", planned(), {}, {}, EngineSettings(), SparkSettings(), "")
    option = as_option(task)
    assert of_option(option).run == "run"
    ours = f'"DuckDB": "{duckdb.__version__}"'
    assert ours in option
    with pytest.raises(RefusedError, match=rf"DuckDB {duckdb.__version__} there, 1\.4\.0 here") as raised:
        of_option(option.replace(ours, '"DuckDB": "1.4.0"'))
    # Beside the driver, where positions are chosen, Spark hands it on as a text.
    told = error_of_spark(f"Traceback:\nheadrace.errors.RefusedError: {raised.value}\n\nSQLSTATE: XXKST")
    assert type(told) is RefusedError
    assert 'spark.environment = "archive"' in told.fix
    # A version that one of both does not know is no difference.
    assert of_option(option.replace(ours, '"Other": "1"')).run == "run"
