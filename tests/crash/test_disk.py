"""A full disk and a read-only folder: a clear error, nothing lost, and the run goes on once there is room."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import canonical
import pytest
from crash_pipeline import PARTITIONS, START, append_all, arrivals, expected, given, pipeline
from oracle_model import Arrival

from headrace.errors import HeadraceError
from headrace.log import open_embedded_log
from headrace.testing import OpenLog, PipelineTest
from servers.disks import full_disk, small_disk
from servers.topics import KafkaTopics, kafka_topics


@pytest.fixture
def topics(kafka_broker: str) -> Iterator[KafkaTopics]:
    with kafka_topics(kafka_broker) as found:
        yield found


def _test(disk: Path, open_log: OpenLog | None) -> PipelineTest:
    return PipelineTest(pipeline, partitions=PARTITIONS, folder=disk, start=START, open_log=open_log)


def _goes_on(disk: Path, open_log: OpenLog | None, found: list[Arrival]) -> None:
    with _test(disk, open_log) as test:
        test.run()
        assert canonical.differences(expected(found), given(test)) == []


def _fill_while_it_runs(megabytes: int, open_log: OpenLog | None = None) -> None:
    """Run out of room in the midst; there is an error that says it, and with room the run goes on."""
    found = arrivals(6000, seed=3)
    with small_disk(megabytes) as disk:
        with _test(disk, open_log) as test:
            append_all(test.log("events"), found)
            test.step(rows_max=500)
            with full_disk(disk), pytest.raises(HeadraceError, match=r"(?i)full|space"):
                for _ in range(1000):
                    test.step(rows_max=500)
        _goes_on(disk, open_log, found)


def _refused(disk: Path, open_log: OpenLog | None) -> None:
    """A run whose folder is read-only for a while says so, and does not begin."""
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    with (
        pytest.raises(HeadraceError, match=r"(?i)read.?only|permission|write|writable"),
        _test(disk, open_log),
    ):
        pass
    subprocess.run(["mount", "-o", "remount,rw", str(disk)], check=True)


def _forbid_to_write(open_log: OpenLog | None = None) -> None:
    """Before the first run and between two: it is refused, and goes on once it may write again."""
    found = arrivals(1000)
    with small_disk(16) as disk:
        _refused(disk, open_log)
        with _test(disk, open_log) as test:
            append_all(test.log("events"), found)
            test.step(rows_max=500)
        _refused(disk, open_log)
        _goes_on(disk, open_log, found)


@pytest.mark.slow
def test_a_full_disk_stops_the_run_with_a_clear_error_and_loses_nothing() -> None:
    _fill_while_it_runs(32)


@pytest.mark.slow
def test_a_full_disk_of_the_store_stops_a_run_on_kafka_with_a_clear_error_and_loses_nothing(
    topics: KafkaTopics,
) -> None:
    _fill_while_it_runs(32, topics.open_log)


def test_a_full_disk_refuses_an_append_and_keeps_what_was_acknowledged() -> None:
    with small_disk(8) as disk:
        with PipelineTest(pipeline, partitions=1, folder=disk, start=START) as test:
            sent = 0
            with pytest.raises(HeadraceError, match=r"(?i)full|space"):
                for _ in range(10_000):
                    test.send_bytes("events", [os.urandom(500) for _ in range(200)])
                    sent += 200
            assert sent > 0
        log = open_embedded_log(disk / "log.db", "events", clock=lambda: START)
        (partition,) = log.partitions()
        log.close()
        assert partition.end == sent


def test_a_read_only_folder_is_refused_with_a_clear_error() -> None:
    _forbid_to_write()


@pytest.mark.slow
def test_a_read_only_folder_of_the_store_is_refused_on_kafka_with_a_clear_error(
    topics: KafkaTopics,
) -> None:
    _forbid_to_write(topics.open_log)
