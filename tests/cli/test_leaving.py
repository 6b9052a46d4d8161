"""How a process of the command line ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from headrace.cli.app import run
from headrace.operate import Runtime

# A thread of Spark's bridge holds what it has called: here a connection of DuckDB, and it never ends.
_BESIDE_SPARK = """
import atexit, sys, threading
import duckdb, py4j.java_gateway
from headrace.cli import _leave

def held(connection):
    threading.Event().wait()

threading.Thread(target=held, args=(duckdb.connect(),), daemon=True).start()
atexit.register(print, "tidied up")
print("equal")
_leave(4)
"""


@pytest.mark.slow
def test_a_run_on_spark_ends_without_words_of_a_library_behind_its_own() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _BESIDE_SPARK], capture_output=True, text=True, timeout=120, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (4, "equal\ntidied up\n", "")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_run_that_is_stopped_while_it_is_opened_says_so_and_begins_nothing(
    number: int, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "weather"
    assert run(["new", str(folder)]) == 0
    capsys.readouterr()
    opening = Runtime.open

    def stopped(*words: Any, **options: Any) -> Runtime:
        os.kill(os.getpid(), number)
        return opening(*words, **options)

    monkeypatch.setattr(Runtime, "open", stopped)
    assert run(["run", "-C", str(folder)]) == 0
    assert capsys.readouterr().out == "stopping\nstopped: nothing was read\n"
    assert not (folder / ".headrace" / "run.json").exists()


def test_ctrl_c_before_a_run_takes_signals_is_told_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "pipeline.py").write_text("raise KeyboardInterrupt\n")
    assert run(["run", "-C", str(tmp_path)]) == 130
    said = capsys.readouterr()
    assert (said.out, said.err) == ("stopped: nothing was read\n", "")


def test_ctrl_c_while_commands_are_loaded_leaves_without_a_trace_of_python() -> None:
    interrupted = """
import sys

class Interrupts:
    def find_spec(self, name, path=None, target=None):
        if name == "headrace.cli.app":
            raise KeyboardInterrupt

import headrace.cli
sys.meta_path.insert(0, Interrupts())
headrace.cli.main()
"""
    done = subprocess.run(
        [sys.executable, "-c", interrupted], capture_output=True, text=True, timeout=120, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")
