"""How a process of the command line ends."""

from __future__ import annotations

import subprocess
import sys

import pytest

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
