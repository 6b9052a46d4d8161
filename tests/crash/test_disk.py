"""A full disk and a read-only folder: a clear error, nothing lost, and the run goes on once there is room."""

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import canonical
import pytest
from crash_pipeline import PARTITIONS, START, append_all, arrivals, expected, given, pipeline
from oracle_model import Arrival

from headrace.errors import HeadraceError
from headrace.log import open_embedded_log
from headrace.testing import OpenLog, PipelineTest
from servers.topics import KafkaTopics, kafka_topics


def _absent(what: str) -> NoReturn:
    """Skip, or fail where nothing may be skipped."""
    (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(what)


@contextlib.contextmanager
def _small_disk(folder: Path, megabytes: int) -> Iterator[Path]:
    """A file system of its own in memory. Skips with the reason where mounting is not permitted."""
    place = folder / "disk"
    place.mkdir()
    options = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(place)]
    try:
        mounted = subprocess.run(options, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        _absent("there is no `mount` here")
    if mounted.returncode != 0:
        _absent(f"a tmpfs cannot be mounted here: {mounted.stderr.strip()}")
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)


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


def _fill_while_it_runs(folder: Path, megabytes: int, open_log: OpenLog | None = None) -> None:
    """Run out of room in the midst; there is an error that says it, and with room the run goes on."""
    found = arrivals(6000, seed=3)
    with _small_disk(folder, megabytes) as disk:
        ballast = disk / "ballast"
        with _test(disk, open_log) as test:
            append_all(test.log("events"), found)
            test.step(rows_max=500)
            _fill(ballast)
            with pytest.raises(HeadraceError, match=r"(?i)full|space"):
                for _ in range(1000):
                    test.step(rows_max=500)
            ballast.unlink()
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


def _forbid_to_write(folder: Path, open_log: OpenLog | None = None) -> None:
    """Before the first run and between two: it is refused, and goes on once it may write again."""
    found = arrivals(1000)
    with _small_disk(folder, 16) as disk:
        _refused(disk, open_log)
        with _test(disk, open_log) as test:
            append_all(test.log("events"), found)
            test.step(rows_max=500)
        _refused(disk, open_log)
        _goes_on(disk, open_log, found)


@pytest.mark.slow
def test_a_full_disk_stops_the_run_with_a_clear_error_and_loses_nothing(tmp_path: Path) -> None:
    _fill_while_it_runs(tmp_path, 32)


@pytest.mark.slow
def test_a_full_disk_of_the_store_stops_a_run_on_kafka_with_a_clear_error_and_loses_nothing(
    topics: KafkaTopics, tmp_path: Path
) -> None:
    _fill_while_it_runs(tmp_path, 32, topics.open_log)


def _fill(ballast: Path) -> None:
    """Take all the room that the disk has left."""
    with ballast.open("wb") as file, contextlib.suppress(OSError):
        for size in (1 << 20, 1 << 12, 1):
            with contextlib.suppress(OSError):
                while True:
                    os.write(file.fileno(), b"x" * size)


def test_a_full_disk_refuses_an_append_and_keeps_what_was_acknowledged(tmp_path: Path) -> None:
    with _small_disk(tmp_path, 8) as disk:
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


def test_a_read_only_folder_is_refused_with_a_clear_error(tmp_path: Path) -> None:
    _forbid_to_write(tmp_path)


@pytest.mark.slow
def test_a_read_only_folder_of_the_store_is_refused_on_kafka_with_a_clear_error(
    topics: KafkaTopics, tmp_path: Path
) -> None:
    _forbid_to_write(tmp_path, topics.open_log)
