"""A thread that hangs in a target when the run ends, and a library that panics."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

from targets import FilesTarget

from headrace.errors import InternalError
from headrace.replicate.protocol import Task
from headrace.testing.pipeline_test import PipelineTest
from headrace.testing.replica_runs import catch_up, feed, following, shop, wait_for

ENDING = """
import sys, threading, duckdb, pyarrow
def hanging():
    while True:
        with duckdb.connect() as connection:
            begun.set()
            connection.sql("SELECT range AS n, range::VARCHAR AS t FROM range(3000)").to_arrow_table()
begun = threading.Event()
for name in ("headrace-replica-one", "headrace-replica-two"):
    threading.Thread(target=hanging, name=name, daemon=True).start()
begun.wait()
sys.argv = ["headrace", "--version"]
from headrace.cli import main
main()
"""


def test_a_run_that_leaves_a_replica_behind_ends_in_good_order() -> None:
    done = subprocess.run(
        [sys.executable, "-c", ENDING], capture_output=True, text=True, timeout=120, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "headrace" in done.stdout


class Panic(BaseException):
    """What a library in Rust raises when it is at its wits' end: no Exception."""


class Panicking:
    """A replica whose library panics while it opens a table, until it is mended."""

    def __init__(self, target: FilesTarget) -> None:
        self.options = target.replica()
        self.mended = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self.options, name)

    def open(self, task: Task) -> Any:
        if not self.mended:
            raise Panic("called `Option::unwrap()` on a `None` value")
        return self.options.open(task)


def test_a_panic_of_a_library_is_seen_and_the_replica_goes_on_when_told(tmp_path: Path) -> None:
    target = FilesTarget(tmp_path / "target")
    panicking: Any = Panicking(target)
    with PipelineTest(shop(), folder=tmp_path / "pipeline", start="2026-03-01T12:00:00") as test:
        feed(test, 0, 20)
        with following(test, panicking) as follower:
            wait_for(lambda: follower.state == "refused", "the panic is seen")
            assert isinstance(follower.error, InternalError)
            assert "Panic" in str(follower.error)
            panicking.mended = True
            follower.resume()
            catch_up(follower)
        assert target.rows("all_rows")
