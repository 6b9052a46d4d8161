"""A full disk and a read-only folder: a clear error, nothing lost, and the run goes on once there is room."""

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import canonical
import pytest
from crash_pipeline import PARTITIONS, START, append, arrivals, expected, given, pipeline

from headrace.errors import HeadraceError
from headrace.log import open_embedded_log
from headrace.testing import PipelineTest


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


@pytest.mark.slow
def test_a_full_disk_stops_the_run_with_a_clear_error_and_loses_nothing(tmp_path: Path) -> None:
    found = arrivals(6000, seed=3)
    with _small_disk(tmp_path, 32) as disk:
        append(disk, found)
        ballast = disk / "ballast"
        with PipelineTest(pipeline, partitions=PARTITIONS, folder=disk, start=START) as test:
            test.step(rows_max=500)
            _fill(ballast)
            with pytest.raises(HeadraceError, match=r"(?i)full|space"):
                for _ in range(1000):
                    test.step(rows_max=500)
            ballast.unlink()
        with PipelineTest(pipeline, partitions=PARTITIONS, folder=disk, start=START) as test:
            test.run()
            assert canonical.differences(expected(found), given(test)) == []


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
    with _small_disk(tmp_path, 16) as disk:
        append(disk, arrivals(100))
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        with (
            pytest.raises(HeadraceError, match=r"(?i)read.?only|permission|write|writable"),
            PipelineTest(pipeline, partitions=PARTITIONS, folder=disk, start=START),
        ):
            pass
        subprocess.run(["mount", "-o", "remount,rw", str(disk)], check=True)
        with PipelineTest(pipeline, partitions=PARTITIONS, folder=disk, start=START) as test:
            test.run()
            assert canonical.differences(expected(arrivals(100)), given(test)) == []
