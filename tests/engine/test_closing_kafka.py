"""Partitions that lag or are idle, on a real broker: windows close when they do on the embedded log."""

import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

import headrace as hr
from headrace.log import Log
from headrace.log.kafka import open_kafka_log
from headrace.testing import OpenLog, PipelineTest, VirtualClock
from servers.guard import wait_until
from servers.topics import KafkaTopics, kafka_topics

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
Seen = list[tuple[datetime | None, int | None, list[tuple[datetime, int]]]]


@pytest.fixture
def topics(kafka_broker: str) -> Iterator[KafkaTopics]:
    with kafka_topics(kafka_broker) as found:
        yield found


def windows(size: str, lateness: str) -> hr.Pipeline:
    """Counts per window of record time."""
    pipeline = hr.Pipeline("closing")
    pipeline.stream("events", schema="n INT", allowed_lateness=lateness)
    pipeline.table(
        "counts",
        f"SELECT window_start, count(*) AS events FROM events GROUP BY window(_record_time, '{size}')",
    )
    return pipeline


def look(test: PipelineTest) -> tuple[datetime | None, int | None, list[tuple[datetime, int]]]:
    [table] = test.ledger().tables
    closed = test.store.status().tables[0].closed_through
    rows = [(row["window_start"], row["events"]) for row in test.table("counts")]
    return closed, table.corrections, rows


def one_of_four_lags(open_log: OpenLog | None) -> Seen:
    """What can be seen after every few records while partition 2 lies ten minutes behind."""
    with PipelineTest(
        windows("1 minute", "1 minute"), partitions=4, start=NOON + 30 * MINUTE, open_log=open_log
    ) as test:
        for number in range(20):
            for partition in range(4):
                at = NOON + number * MINUTE + timedelta(seconds=partition)
                at += timedelta(0) if partition == 2 else 10 * MINUTE
                test.send("events", {"n": number}, at=at, partition=partition)
        seen = []
        while test.step(rows_max=7):
            seen.append(look(test))
        return seen


def one_of_four_is_idle(open_log: OpenLog | None) -> Seen:
    """What can be seen while time goes on and partition 3 never gets a record."""
    with PipelineTest(windows("1 minute", "1 minute"), partitions=4, start=NOON, open_log=open_log) as test:
        seen = []
        for number in range(12):
            test.send("events", [{"n": number}] * 3, partition=number % 3)
            test.advance("20 seconds")
            seen.append(look(test))
        test.advance("3 minutes")
        return [*seen, look(test)]


def test_a_partition_ten_minutes_behind_holds_windows_open_as_on_the_embedded_log(
    topics: KafkaTopics,
) -> None:
    seen = one_of_four_lags(topics.open_log)
    assert seen == one_of_four_lags(None)
    closed, corrections, _ = seen[-1]
    assert (closed is not None, corrections) == (True, 0)


def test_an_idle_partition_lets_windows_close_as_on_the_embedded_log(topics: KafkaTopics) -> None:
    seen = one_of_four_is_idle(topics.open_log)
    assert seen == one_of_four_is_idle(None)
    closed, corrections, rows = seen[-1]
    assert (closed, corrections) == (NOON + 5 * MINUTE, 0)
    assert sum(events for _, events in rows) == 36


def test_with_the_times_of_the_broker_an_idle_partition_lets_windows_close(kafka_broker: str) -> None:
    with kafka_topics(kafka_broker, record_time="log") as topics:

        def open_log(stream: str, partitions: int, _: VirtualClock) -> Log:
            return open_kafka_log(topics.settings(stream, partitions), stream)

        with PipelineTest(windows("1 second", "1 second"), partitions=4, open_log=open_log) as test:
            stop = threading.Event()
            running = threading.Thread(target=test.engine.run, args=(stop,))
            running.start()
            try:
                for partition in range(3):
                    test.send("events", [{"n": 1}] * 5, partition=partition)

                def all_closed() -> bool:
                    assert running.is_alive()
                    closed, _, rows = look(test)
                    return (
                        closed is not None
                        and sum(events for _, events in rows) == 15
                        and closed >= rows[-1][0] + timedelta(seconds=1)
                    )

                wait_until(all_closed, what="windows close behind the last record", seconds=60)
            finally:
                stop.set()
                running.join()
            _, corrections, rows = look(test)
            assert corrections == 0
            assert sum(events for _, events in rows) == 15
            assert test.ledger().balanced
