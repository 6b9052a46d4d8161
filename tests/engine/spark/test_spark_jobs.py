"""In how many jobs a micro-batch is done: one, unless copies have to be known before records are added up."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pytest

import headrace as hr
from headrace.engine.local import EpochReport
from headrace.engine.local.compute import Delta, FailedRow
from headrace.engine.spark import SparkSettings
from headrace.engine.spark.engine import SparkEngine
from headrace.engine.spark.jobs import Jobs, removed
from headrace.log.kafka import open_kafka_log
from headrace.sql import plan_pipeline
from headrace.store import Store
from log.kafka_streams import values
from servers.topics import KafkaTopics, kafka_topics

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

LANES = [("events", "main"), ("events", "redrive")]
ROWS = "SELECT n FROM events"
SUMS = "SELECT count(*) AS records FROM events"


def jobs_of(*queries: str, unique: str | None = "n", outside: tuple[str, ...] = (), key: str = "") -> Jobs:
    """The jobs of a stream with tables "t0", "t1", …"""
    pipeline = hr.Pipeline("jobs")
    pipeline.stream("events", schema="n BIGINT NOT NULL", unique=unique)
    for number, query in enumerate(queries):
        pipeline.table(f"t{number}", query, key=key or None)
    return Jobs(plan_pipeline(pipeline), LANES, outside)


def after(jobs: Jobs, *, copies: bool) -> None:
    """Let `jobs` learn from a micro-batch of the main lane."""
    jobs.second(jobs.first(), ["events/main"] if copies else [], ["events/main"])


def test_tables_of_a_stream_that_has_no_copies_are_computed_with_the_first_job() -> None:
    jobs = jobs_of(ROWS, SUMS, unique=None, outside=("t0",))
    first = jobs.first()
    assert first == {"events/main": ("t0", "t1")}
    assert not jobs.is_kept(first)
    assert jobs.second(first, [], ["events/main"]) == {}
    # Which redriven records are in a table is known only afterwards.
    assert jobs.second(first, [], ["events/main", "events/redrive"]) == {"events/redrive": ("t0", "t1")}


def test_rows_from_which_the_driver_can_take_copies_need_no_second_job() -> None:
    jobs = jobs_of(ROWS, "SELECT n + 1 AS m FROM events WHERE n > 3")
    first = jobs.first()
    assert first == {"events/main": ("t0", "t1"), "events/redrive": ("t0", "t1")}
    assert not jobs.is_kept(first)
    assert jobs.second(first, ["events/main", "events/redrive"], [*first]) == {}


@pytest.mark.parametrize(
    "jobs",
    [
        jobs_of(ROWS, SUMS),
        jobs_of(ROWS, key="n"),
        jobs_of(ROWS, outside=("t0",)),
    ],
    ids=["with groups", "with a key", "written by executors"],
)
def test_where_copies_cannot_be_taken_out_tables_wait_until_they_are_known(jobs: Jobs) -> None:
    first = jobs.first()
    assert first == {}
    assert jobs.is_kept(first)
    assert [*jobs.second(first, [], ["events/main"])] == ["events/main"]


def test_after_micro_batches_without_copies_the_next_one_is_taken_to_have_none() -> None:
    jobs = jobs_of(ROWS, SUMS)
    for _ in range(3):
        assert jobs.first() == {}
        after(jobs, copies=False)
    first = jobs.first()
    assert first == {"events/main": ("t0", "t1")}
    assert not jobs.is_kept(first)
    assert jobs.second(first, [], ["events/main"]) == {}
    # One that has a copy after all is computed again, and the next guess takes twice as long.
    assert jobs.second(first, ["events/main"], ["events/main"]) == {"events/main": ("t0", "t1")}
    for _ in range(6):
        assert jobs.first() == {}
        after(jobs, copies=False)
    assert jobs.first() == first
    # A micro-batch without timely rows says nothing.
    jobs.second(first, [], [])
    assert jobs.first() == first


def test_nothing_is_guessed_of_what_executors_would_write_for_nothing() -> None:
    jobs = jobs_of(ROWS, SUMS, outside=("t0",))
    for _ in range(10):
        after(jobs, copies=False)
    assert jobs.first() == {}


def test_records_are_taken_out_of_what_was_computed_with_all_their_rows_and_failures() -> None:
    at = [datetime(2026, 3, 1, 12, minute, tzinfo=UTC) for minute in range(5)]
    rows = pa.table(
        {
            "item": ["a", "b", "c", "d", "e"],
            "_time": pa.array([at[0], at[0], at[1], at[2], at[3]], pa.timestamp("us", "UTC")),
            # The first two are of one record.
            "_partition": pa.array([0, 0, 0, 1, 1], pa.int32()),
            "_offset": pa.array([7, 7, 8, 7, 9], pa.int64()),
        }
    )
    failed = (FailedRow(0, 5, "no"), FailedRow(1, 5, "no"))
    delta = Delta(rows, kept=4, filtered=3, failed=failed, lowest=0, highest=0)
    found = removed(delta, {0: (3, 5, 7), 1: (9,)})
    assert found.rows.column("item").to_pylist() == ["c", "d"]
    assert (found.kept, found.failed) == (2, (FailedRow(1, 5, "no"),))
    assert (found.lowest, found.highest) == tuple(int(one.timestamp() * 1e6) for one in (at[1], at[2]))
    assert removed(delta, {2: (7,)}) == delta
    empty = removed(delta, {0: (7, 8), 1: (7, 9)})
    assert (empty.rows.num_rows, empty.kept, empty.lowest, empty.highest) == (0, 0, None, None)


@pytest.fixture
def topics(kafka_broker: str) -> Iterator[KafkaTopics]:
    with kafka_topics(kafka_broker) as found:
        yield found


class Worked:
    """A run over records, to the end: what its tables answer, and which micro-batches had a second job."""

    def __init__(
        self,
        topics: KafkaTopics,
        session: SparkSession,
        folder: Path,
        pipeline: hr.Pipeline,
        numbers: list[int],
        *,
        partitions: int,
    ) -> None:
        plan = plan_pipeline(pipeline)
        log = open_kafka_log(topics.settings("events", partitions), "events")
        at = datetime.now(UTC).isoformat()
        log.append(values(*[b'{"n": %d, "at": "%s"}' % (number, at.encode()) for number in numbers]))
        store = Store.open(folder / "store.duckdb", plan, identities={"events": log.identity})
        spark = SparkEngine(
            plan, {"events": log}, store, spark=SparkSettings(batch_rows_max=10), session=session
        )
        self.second: list[bool] = []

        def told(report: EpochReport) -> None:
            if sum(report.records.values()):
                self.second.append("second_job" in report.seconds)

        try:
            spark.run(threading.Event(), until_caught_up=True, on_epoch=told)
            self.tables = {one.name: store.query(f"FROM {one.name}").to_pylist() for one in plan.tables}
            self.ledger = store.ledger()
        finally:
            spark.close()
            store.close()
            log.close()


def stream_of(name: str) -> hr.Pipeline:
    pipeline = hr.Pipeline(name)
    pipeline.stream(
        "events",
        schema="n BIGINT NOT NULL, at TIMESTAMP NOT NULL",
        event_time="at",
        unique="n",
        allowed_lateness="1 hour",
    )
    return pipeline


def test_copies_within_and_across_micro_batches_are_taken_out_of_rows_without_a_second_job(
    topics: KafkaTopics, spark_session: SparkSession, tmp_path: Path
) -> None:
    pipeline = stream_of("plain_rows")
    pipeline.table("even", "SELECT n FROM events WHERE n % 2 = 0")
    pipeline.table("parts", "SELECT n, part FROM events, UNNEST([n, n + 100]) AS p(part)")
    pipeline.table("checked", "SELECT CASE WHEN n = 5 THEN error('five') ELSE n END AS n FROM events")
    numbers = [*range(20), *range(20), *range(8), 20, 20]
    worked = Worked(topics, spark_session, tmp_path, pipeline, numbers, partitions=2)
    assert len(worked.second) >= 5
    assert not any(worked.second)
    assert sorted(row["n"] for row in worked.tables["even"]) == [*range(0, 21, 2)]
    assert sorted(row["part"] for row in worked.tables["parts"]) == [*range(21), *range(100, 121)]
    assert sorted(row["n"] for row in worked.tables["checked"]) == [n for n in range(21) if n != 5]
    lines = {line.table: (line.kept, line.filtered, line.failed) for line in worked.ledger.tables}
    assert lines == {"even": (11, 10, 0), "parts": (21, 0, 0), "checked": (20, 0, 1)}
    assert worked.ledger.balanced


def test_records_are_added_up_in_one_job_while_no_copies_come_and_again_when_one_came(
    topics: KafkaTopics, spark_session: SparkSession, tmp_path: Path
) -> None:
    pipeline = stream_of("groups")
    pipeline.table("total", "SELECT count(*) AS records, sum(n) AS n, max(n) AS most FROM events")
    pipeline.table("plain", "SELECT n FROM events")
    worked = Worked(topics, spark_session, tmp_path, pipeline, [*range(60), 3], partitions=1)
    assert worked.second[:3] == [True] * 3
    assert worked.second[3:-1] == [False] * (len(worked.second) - 4)
    assert len(worked.second) >= 6
    assert worked.second[-1]
    assert worked.tables["total"] == [{"records": 60, "n": sum(range(60)), "most": 59}]
    assert sorted(row["n"] for row in worked.tables["plain"]) == [*range(60)]
    assert worked.ledger.balanced
