"""Large records, other writers' transactions, compacted topics, times of producers: on a real broker."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from confluent_kafka import Producer
from raw_fetch import fetch_producers

from headrace.errors import RefusedError, TransientError
from headrace.log import APPEND_SCHEMA
from headrace.log.between import read_between
from headrace.log.kafka import appending
from headrace.log.protocol import RecordTooLargeError
from headrace.operate.log_tools import From, peek
from log.kafka_streams import (
    NO_WAIT,
    ONES,
    Counted,
    Writer,
    alter_topic,
    make_topic,
    ones,
    opened,
    read_values,
    take,
    topic_name,
    values,
)
from servers.guard import wait_until

TIMESTAMP = APPEND_SCHEMA.field("record_time").type


@pytest.fixture
def topic(kafka_broker: str) -> Iterator[str]:
    yield topic_name()


# --- sizes


def test_a_record_larger_than_a_fetch_is_read(kafka_broker: str, topic: str) -> None:
    large = b"x" * 300_000
    with opened(kafka_broker, topic, partitions=1) as log:
        log.append(values(b"small", large, b"small"))
    small_fetches = {
        "fetch.max.bytes": "2000",
        "max.partition.fetch.bytes": "1000",
        "message.max.bytes": "2000",
    }
    with opened(kafka_broker, topic, client=small_fetches) as log:
        assert read_values(log, 3) == [b"small", large, b"small"]


@pytest.mark.parametrize(
    ("options", "limit"), [({}, 5000), ({"record_bytes_max": 4000}, 4000)], ids=["topic", "profile"]
)
def test_a_record_that_is_too_large_is_refused_with_all_that_came_with_it(
    kafka_broker: str, topic: str, options: dict[str, int], limit: int
) -> None:
    make_topic(kafka_broker, topic, max_message_bytes="5000")
    with opened(kafka_broker, topic, **options) as log:
        with pytest.raises(RefusedError, match=f"record_bytes_max is {limit:,}; nothing was written") as told:
            log.append(values(b"small", b"x" * limit))
        assert "raise record_bytes_max in the profile" in str(told.value)
        with pytest.raises(RefusedError, match="with its key and headers"):
            log.append(values(b"small", key=[b"k" * limit]))
        assert log.partitions()[0].end == 0
        log.append(values(b"x" * (limit - 200)))
        assert log.partitions()[0].end == 1


def test_an_append_does_not_wait_until_its_records_have_lingered(kafka_broker: str, topic: str) -> None:
    with opened(kafka_broker, topic, partitions=1, client={"linger.ms": "5000"}) as log:
        log.append(ones(1))  # connections are made
        begun = time.monotonic()
        log.append(ones(3))
        assert time.monotonic() - begun < 4


def test_a_limit_that_is_lowered_behind_an_open_log_refuses_what_is_larger(
    kafka_broker: str, topic: str
) -> None:
    make_topic(kafka_broker, topic, max_message_bytes="20000")
    with opened(kafka_broker, topic, compression="none") as log:
        alter_topic(kafka_broker, topic, max_message_bytes="2000")
        with pytest.raises(RecordTooLargeError, match=r"larger than the topic takes \(0 of 1 records"):
            log.append(values(b"x" * 5000))
        log.append(values(b"small"))
        assert log.partitions()[0].end == 1


def test_many_small_records_go_into_a_topic_with_a_small_limit(kafka_broker: str, topic: str) -> None:
    make_topic(kafka_broker, topic, max_message_bytes="2000")
    with opened(kafka_broker, topic, compression="none") as log:
        log.append(values(*[b"%0100d" % number for number in range(500)]))
        assert log.partitions()[0].end == 500


def test_a_topic_that_takes_less_than_the_profile_says_is_refused(kafka_broker: str, topic: str) -> None:
    make_topic(kafka_broker, topic, max_message_bytes="5000")
    with (
        pytest.raises(RefusedError, match="record_bytes_max 5000, the profile asks for 6000"),
        opened(kafka_broker, topic, record_bytes_max=6000),
    ):
        pass


# --- how records are sent


def test_what_is_appended_carries_the_numbers_by_which_brokers_know_a_repeat(
    kafka_broker: str, topic: str
) -> None:
    with opened(kafka_broker, topic, partitions=1) as log:
        log.append(ones(300))
        log.append(ones(200))
    somebody = Producer({"bootstrap.servers": kafka_broker, "log_level": 0})
    somebody.produce(topic, b"by a producer without them")
    assert somebody.flush(30) == 0
    *ours, theirs = fetch_producers(kafka_broker, topic)
    assert theirs == (-1, -1)
    assert len({producer for producer, _ in ours}) == 1
    assert ours[0][0] >= 0
    # They go on from one append to the next.
    first = [number for _, number in ours]
    assert first == sorted(set(first)) and first[0] == 0 and 300 in first


@pytest.mark.parametrize(
    ("bound", "most", "large"),
    [
        ("_WAITING_MAX", 200, None),
        ("_WAITING_BYTES_MAX", 200 * 1000, "value"),
        ("_WAITING_BYTES_MAX", 200 * 1000, "key"),
        ("_WAITING_BYTES_MAX", 200 * 1000, "headers"),
    ],
)
def test_of_a_large_append_few_records_and_few_bytes_are_on_their_way_at_once(
    kafka_broker: str, topic: str, monkeypatch: pytest.MonkeyPatch, bound: str, most: int, large: str | None
) -> None:
    monkeypatch.setattr(appending, "_BATCH", 50)
    monkeypatch.setattr(appending, bound, most)
    on_their_way: list[int] = []
    send = appending.KafkaAppender._send

    def watched(self: appending.KafkaAppender, *given: Any) -> None:
        send(self, *given)
        on_their_way.append(len(self._producer))

    monkeypatch.setattr(appending.KafkaAppender, "_send", watched)
    # They linger longer than it takes to hand all of them over.
    with opened(kafka_broker, topic, partitions=2, client={"linger.ms": "200"}) as log:
        columns: dict[str, list[Any]] = {
            "partition": [0, 1] * 1000,
            "value": [b"%d" % number for number in range(2000)],
            "key": [None] * 2000,
            "headers": [None] * 2000,
        }
        if large is not None:
            much = b"x" * 1000
            columns[large] = [[{"key": "much", "value": much}] if large == "headers" else much] * 2000
        log.append(pa.table(columns, schema=pa.schema([APPEND_SCHEMA.field(name) for name in columns])))
        assert [held.end for held in log.partitions()] == [1000, 1000]
    assert len(on_their_way) == 40
    assert 50 < max(on_their_way) <= 250


# --- transactions


def test_aborted_records_are_not_read_and_offsets_without_a_record_are_gaps(
    kafka_broker: str, topic: str, tmp_path: Path
) -> None:
    with opened(kafka_broker, topic, partitions=1) as log:
        writer = Writer(kafka_broker, topic)
        writer.write(ONES, ONES)
        writer.commit()
        writer.write(b'{"n": 1000}', b'{"n": 1000}', b'{"n": 1000}')
        writer.abort()
        writer.write(ONES)
        writer.commit()
        log.append(ones(1))
        end = log.partitions()[0].end
        assert end == 2 + 1 + 3 + 1 + 1 + 1 + 1
        with Counted(log, tmp_path) as run:
            run.wait_for(4)
            wait_until(lambda: run.store.progress.positions("events", "main") == {0: end}, what="the end")
            run.stop()
            assert run.total() == (4, 4)
            [main] = [line for line in run.ledger().lanes if line.lane == "main"]
            assert (main.gaps, main.end - main.start) == (6, end)
            assert main.end - main.start == sum(main.outcomes.values()) + main.gaps
            assert run.ledger().balanced


def test_an_aborted_end_is_passed_over_and_then_idle(kafka_broker: str, topic: str) -> None:
    with opened(kafka_broker, topic, partitions=1) as log:
        writer = Writer(kafka_broker, topic)
        log.append(ones(1))
        writer.write(b"never", b"never")
        writer.abort()
        positions: dict[int, int] = {}
        gaps = 0

        def idle() -> bool:
            nonlocal gaps
            given = take(log, positions)
            positions.update(given.next)
            gaps += sum(given.gaps.values())
            assert b"never" not in given.records.column("value").to_pylist()
            return 0 in given.idle_since

        wait_until(idle, what="the partition is read to its end")
        assert (positions, gaps) == ({0: 4}, 3)


def test_an_open_transaction_holds_back_its_own_partition_alone(kafka_broker: str, topic: str) -> None:
    with opened(kafka_broker, topic, partitions=2) as log:
        writer = Writer(kafka_broker, topic)
        log.append(values(b"a", b"b", partition=[0, 1]))
        writer.write(b"open", partition=1)
        positions: dict[int, int] = {}
        read: list[bytes] = []

        def read_to(count: int) -> bool:
            given = take(log, positions)
            positions.update(given.next)
            read.extend(given.records.column("value").to_pylist())
            assert 1 not in given.idle_since or b"open" in read
            return len(read) >= count and 0 in given.idle_since

        for number in range(3):
            log.append(values(b"%d" % number, partition=[0]))
            wait_until(
                lambda so_far=3 + number: read_to(so_far), what="the other partition goes on", seconds=10
            )
        assert sorted(read) == [b"0", b"1", b"2", b"a", b"b"]
        writer.commit()
        wait_until(lambda: read_to(6), what="the record of the transaction is read")
        assert read[-1] == b"open"


def test_who_reads_a_part_of_a_topic_is_told_soon_of_a_transaction_that_stays_open(
    kafka_broker: str, topic: str
) -> None:
    with opened(kafka_broker, topic, partitions=2) as log:
        writer = Writer(kafka_broker, topic)
        log.append(values(b"a", b"b", partition=[0, 1]))
        writer.write(b"open", partition=1)
        starts, ends = {0: 0, 1: 0}, {each.partition: each.end for each in log.partitions()}
        assert ends == {0: 1, 1: 2}

        def read(*, settled: bool) -> list[bytes]:
            slices = list(read_between(log, starts, ends, settled=settled))
            return sorted(value for each in slices for value in each.column("value").to_pylist())

        began = time.monotonic()
        with pytest.raises(TransientError, match=r"partition 1: from offset 1 on, .* has not ended"):
            read(settled=False)
        assert read(settled=True) == [b"a", b"b"]
        assert time.monotonic() - began < 12
        assert [each.facts["offset"] for each in peek(log, From(last=10))] == [0, 0]
        writer.commit()
        assert read(settled=False) == [b"a", b"b", b"open"]


# --- compaction


def test_the_holes_of_a_compacted_topic_are_gaps(kafka_broker: str, topic: str, tmp_path: Path) -> None:
    make_topic(
        kafka_broker,
        topic,
        cleanup_policy="compact",
        min_cleanable_dirty_ratio="0.001",
        segment_bytes="1048576",
        segment_ms="200",
        max_compaction_lag_ms="200",
    )
    with opened(kafka_broker, topic) as log:
        for _ in range(20):
            log.append(ones(2, key=[b"a", b"b"]))
        held: list[int] = []

        def compacted() -> bool:
            log.append(ones(1, key=[b"c"]))  # what is not rolled into a closed segment is not compacted
            held[:] = [len(read_values(log, 1)), log.partitions()[0].end]
            return held[0] < held[1]

        wait_until(compacted, what="Kafka compacts the topic", seconds=60)
        records, end = len(read_values(log, 1)), log.partitions()[0].end
        with Counted(log, tmp_path) as run:
            wait_until(lambda: run.store.progress.positions("events", "main") == {0: end}, what="the end")
            run.stop()
            [main] = [line for line in run.ledger().lanes if line.lane == "main"]
            assert main.gaps > 0
            assert main.gaps + sum(main.outcomes.values()) == end == main.end
            assert sum(main.outcomes.values()) <= records
            assert run.ledger().balanced


# --- times


def test_a_topic_with_times_of_producers_works_and_says_what_may_happen(
    kafka_broker: str, topic: str
) -> None:
    make_topic(kafka_broker, topic, message_timestamp_type="CreateTime")
    with opened(kafka_broker, topic) as log:
        [warning] = log.warnings
        assert "record times are set by producers (CreateTime); windows may close early" in warning
        producer = Producer({"bootstrap.servers": kafka_broker, "log_level": 0})
        producer.produce(topic, b"timed", timestamp=1_700_000_000_000)
        assert producer.flush(30) == 0
        [record] = take(log, wait=timedelta(seconds=20)).records.to_pylist()
        assert record["record_time"].timestamp() == 1_700_000_000
    with opened(kafka_broker, topic, record_time="header") as log:
        assert log.warnings == ()
        assert take(log, {0: 1}, NO_WAIT).records.num_rows == 0
