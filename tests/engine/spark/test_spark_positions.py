"""What a micro-batch reads of real topics: positions beside the driver, ranges on executors."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

import headrace as hr
from headrace.engine.local import EngineSettings
from headrace.engine.spark import SparkSettings
from headrace.engine.spark.fetching import RangeReader
from headrace.engine.spark.pace import tell_pace
from headrace.engine.spark.positions import Offset, Positions, believed
from headrace.engine.spark.source import OPTION, HeadraceSource
from headrace.engine.spark.task import LaneTask, Task, as_option
from headrace.errors import HeadraceError, IntegrityError, RefusedError
from headrace.log.embedded import utc_now
from headrace.log.kafka import KafkaLog, KafkaSettings
from headrace.log.kafka.topics import Topic
from headrace.sql import plan_pipeline
from log.kafka_streams import Writer, delete_topic, make_topic, opened, topic_name, values

LANE = ("events", "main")


def lane_of(log: KafkaLog) -> LaneTask:
    starts = {held.partition: held.start for held in log.partitions()}
    return LaneTask(log.settings, log.topic_id, starts, loading=log.settings.record_time == "header")


def positions_of(log: KafkaLog, **settings: Any) -> Positions:
    pipeline = hr.Pipeline("read")
    pipeline.stream("events", schema="n BIGINT NOT NULL")
    plan = plan_pipeline(pipeline)
    task = Task("run", plan, {LANE: lane_of(log)}, {}, EngineSettings(), SparkSettings(**settings), "")
    return Positions(task, utc_now)


def numbered(count: int, partition: int) -> pa.Table:
    return values(
        *[b"%d" % number for number in range(count)], partition=pa.array([partition] * count, pa.int32())
    )


def at(offset: Offset) -> dict[str, int]:
    found: dict[str, int] = offset["at"]["events/main"]
    return found


@contextmanager
def reader(log: KafkaLog, *, lose: bool = False) -> Iterator[RangeReader]:
    found = RangeReader(lane_of(log), lose=lose)
    try:
        yield found
    finally:
        found.close()


def test_batches_reach_the_end_and_a_quiet_log_is_looked_at_now_and_then(kafka_broker: str) -> None:
    with opened(kafka_broker, topic_name(), partitions=2) as log:
        log.append(numbered(50, 0))
        log.append(numbered(30, 1))
        positions = positions_of(log)
        offset, batches = positions.first(), 0
        while at(offset) != {"0": 50, "1": 30}:
            following = positions.latest(offset, 20)
            moved = sum(at(following).values()) - sum(at(offset).values())
            assert 0 < moved <= 20
            offset, batches = following, batches + 1
        assert batches >= 4
        assert positions.latest(offset, 20) is offset
        eager = positions_of(log, quiet=timedelta(0))
        assert eager.latest(offset, 20)["asked"] > offset["asked"]


def sized(sizes: list[int], partition: int) -> pa.Table:
    return values(*[b"x" * size for size in sizes], partition=pa.array([partition] * len(sizes), pa.int32()))


@pytest.mark.parametrize("sizes", [[50_000] * 60, [10] * 400 + [50_000] * 100], ids=["all", "the last"])
def test_a_first_batch_is_bounded_by_the_bytes_of_the_records_that_it_may_read(
    kafka_broker: str, sizes: list[int]
) -> None:
    with opened(kafka_broker, topic_name(), partitions=2) as log:
        log.append(sized(sizes, 0))
        log.append(sized([10] * 300, 1))
        positions = positions_of(log, batch_bytes_max=1_000_000)
        offset = positions.latest(positions.first(), 20_000)
        assert 0 < sum(at(offset).values()) <= 20
        # Those after it are judged by what was read.
        assert at(positions.latest(offset, 20_000)) == {"0": len(sizes), "1": 300}


def test_a_first_batch_of_small_records_is_bounded_by_their_number_alone(kafka_broker: str) -> None:
    topic = topic_name()
    with opened(kafka_broker, topic, partitions=1) as log:
        log.append(numbered(500, 0))
        positions, narrow = positions_of(log, batch_bytes_max=10_000), positions_of(log, batch_bytes_max=1)
        delete_before(kafka_broker, topic, 40)  # what retention took is the executors' to tell
        assert at(positions.latest(positions.first(), 1000)) == {"0": 500}
        assert at(narrow.latest(narrow.first(), 1000)) == {"0": 1}


def test_a_log_that_lost_its_end_stops_the_run(kafka_broker: str) -> None:
    with opened(kafka_broker, topic_name(), partitions=1) as log:
        log.append(numbered(40, 0))
        positions = positions_of(log)
        beyond = {**positions.first(), "at": {"events/main": {"0": 100}}}
        with pytest.raises(IntegrityError, match="beyond the log's end 40"):
            positions.latest(beyond, 20)


def test_a_topic_that_was_made_again_stops_the_run(kafka_broker: str) -> None:
    topic = topic_name()
    with opened(kafka_broker, topic, partitions=1) as log:
        positions = positions_of(log)
        delete_topic(kafka_broker, topic)
        make_topic(kafka_broker, topic)
        with pytest.raises(HeadraceError, match="deleted"):
            positions.latest(positions.first(), 20)


def test_a_load_of_history_is_known_to_the_batches(kafka_broker: str) -> None:
    with opened(kafka_broker, topic_name(), partitions=1, record_time="header") as log:
        positions = positions_of(log)
        with log.load():
            assert positions.latest(positions.first(), 20)["loading"] == ["events"]
        assert positions.latest(positions.first(), 20)["loading"] == []


def test_ranges_give_their_records_each_once(kafka_broker: str) -> None:
    with opened(kafka_broker, topic_name(), partitions=1) as log:
        log.append(numbered(100, 0))
        with reader(log) as ranges:
            found = []
            for start, end in ((0, 40), (40, 70), (20, 30), (70, 100)):
                (part,) = ranges.read(0, start, end)
                assert (part.start, part.next, part.gaps, part.lost) == (start, end, 0, 0)
                assert part.records.column("offset").to_pylist() == list(range(start, end))
                found += part.records.column("value").to_pylist()
        assert sorted(set(found), key=int) == [b"%d" % number for number in range(100)]


def test_records_that_retention_took_stop_the_run_or_are_counted_as_lost(kafka_broker: str) -> None:
    topic = topic_name()
    with opened(kafka_broker, topic, partitions=1) as log:
        log.append(numbered(50, 0))
        delete_before(kafka_broker, topic, 30)
        with reader(log) as ranges, pytest.raises(RefusedError, match="begins at 30"):
            list(ranges.read(0, 10, 50))
        with reader(log, lose=True) as ranges:
            (part,) = ranges.read(0, 10, 50)
            assert (part.next, part.lost, part.records.num_rows) == (50, 20, 20)


def delete_before(brokers: str, topic: str, offset: int) -> None:
    from confluent_kafka import TopicPartition
    from confluent_kafka.admin import AdminClient

    admin = AdminClient({"bootstrap.servers": brokers, "log_level": 0})
    for done in admin.delete_records([TopicPartition(topic, 0, offset)]).values():
        done.result(20)


def test_ends_of_a_topic_with_replicas_are_believed_when_all_of_them_must_have_told() -> None:
    now = datetime(2026, 3, 1, 12, tzinfo=UTC)
    alone, copied = Topic("a", partitions=1, replication=1), Topic("b", partitions=1, replication=3)
    assert believed(now, [alone]) == now
    assert believed(now, [alone, copied]) == now - timedelta(seconds=30)


def test_a_long_range_of_one_partition_is_read_by_several_tasks_where_there_are_cores(tmp_path: Path) -> None:
    path = tmp_path / "pace"
    pipeline = hr.Pipeline("read")
    pipeline.stream("events", schema="n BIGINT NOT NULL")
    lanes = {LANE: LaneTask(KafkaSettings(brokers="localhost:1", topic="events"), "one", {}, loading=False)}
    task = Task("run", plan_pipeline(pipeline), lanes, {}, EngineSettings(), SparkSettings(), str(path))
    source = HeadraceSource({OPTION: as_option(task)}).streamReader(None)
    start, end = ({"at": {"events/main": {"0": 7, "1": until}}} for until in (0, 30_000))
    end["at"]["events/main"]["0"] = 70_007

    def spans() -> list[tuple[int, int, int]]:
        return [
            (one.partition, one.start, one.end)
            for part in source.partitions(start, end)
            for one in part.spans
        ]

    assert spans() == [(0, 7, 70_007), (1, 0, 30_000)]
    tell_pace(str(path), rows=1_000, size=1_000, seconds=1.0, bytes_max=1_000_000, cores=5)
    assert spans() == [
        (0, 7, 20_007), (0, 20_007, 40_007), (0, 40_007, 60_007), (0, 60_007, 70_007),
        (1, 0, 20_000), (1, 20_000, 30_000),
    ]  # fmt: skip
    with_end = [part.end for part in source.partitions(start, end)]
    assert with_end == [end, *[None] * 5]


def test_records_of_other_writers_transactions_are_read_when_they_are_committed_and_never_otherwise(
    kafka_broker: str,
) -> None:
    topic = topic_name()
    with opened(kafka_broker, topic, partitions=1) as log, reader(log) as ranges:
        positions, first, second = positions_of(log), Writer(kafka_broker, topic), Writer(kafka_broker, topic)
        first.write(b"a", b"b")
        first.commit()
        first.write(b"never", b"never")
        first.abort()
        log.append(values(b"c"))
        second.write(b"open")
        offset = positions.latest(positions.first(), 1000)
        # Two records, a mark, two that are aborted, a mark, one record; what is open is not read, but counts.
        assert (at(offset), offset["ends"]["events/main"]) == ({"0": 7}, {"0": 8})
        parts = [part for cut in ((0, 3), (3, 4), (4, 7)) for part in ranges.read(0, *cut)]
        assert [part.records.column("value").to_pylist() for part in parts] == [[b"a", b"b"], [], [b"c"]]
        assert [part.gaps for part in parts] == [1, 1, 2]
        second.commit()
        following = positions.latest(offset, 1000)
        assert at(following) == {"0": 9}
        [part] = ranges.read(0, 7, 9)
        assert (part.records.column("value").to_pylist(), part.gaps) == ([b"open"], 1)


def test_a_partition_that_is_added_is_in_the_next_micro_batch_from_its_start(kafka_broker: str) -> None:
    topic = topic_name()
    with opened(kafka_broker, topic, partitions=1) as log:
        log.append(numbered(5, 0))
        positions = positions_of(log)
        offset = positions.latest(positions.first(), 1000)
        assert at(offset) == {"0": 5}
        with opened(kafka_broker, topic, partitions=3) as grown:
            grown.append(numbered(4, 2))
            offset = positions.latest(offset, 1000)
            assert at(offset) == {"0": 5, "1": 0, "2": 4}
            with reader(log) as ranges:
                [part] = ranges.read(2, 0, 4)
                assert part.records.num_rows == 4
