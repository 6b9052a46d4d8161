"""What ends with a run on Spark ends in silence: its own words are the last ones on a terminal."""

from __future__ import annotations

import os
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, cast

import pytest
from pyspark import cloudpickle
from pyspark.serializers import SpecialLengths, read_int, write_int, write_with_length
from pyspark.sql.streaming import python_streaming_source_runner as runner

import headrace as hr
from headrace.engine.local import EngineSettings
from headrace.engine.spark import SparkSettings
from headrace.engine.spark.source import OPTION, HeadraceSource
from headrace.engine.spark.task import Task, as_option
from headrace.sql import plan_pipeline

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

_WAIT_S = 120
_SECRET = b"of the test"


def option() -> str:
    """What the data source of a run over no topic is given."""
    pipeline = hr.Pipeline("stopped")
    pipeline.stream("events", schema="n BIGINT NOT NULL")
    return as_option(Task("run", plan_pipeline(pipeline), {}, {}, EngineSettings(), SparkSettings(), ""))


class SourceRunner:
    """PySpark's process beside the driver, with our data source; the test talks to it as Spark does."""

    def __init__(self, process: subprocess.Popen[str], connection: socket.socket) -> None:
        self.process = process
        self._connection = connection
        self.stream = cast(BinaryIO, connection.makefile("rwb"))

    def begin(self, source: HeadraceSource, folder: Path) -> None:
        secret = self.stream.read(read_int(self.stream))
        assert secret == _SECRET
        self._tell(b"ok")
        assert read_int(self.stream) == self.process.pid
        self._tell(f"{sys.version_info.major}.{sys.version_info.minor}".encode(), str(folder).encode())
        write_int(0, self.stream)  # nothing to put on its path
        self._tell(cloudpickle.dumps(source), b'{"type": "struct", "fields": []}')
        write_int(1_000, self.stream)
        self.stream.flush()
        assert read_int(self.stream) == 0, self.stream.read(read_int(self.stream))

    def ask(self, function: int) -> None:
        write_int(function, self.stream)
        self.stream.flush()

    def disconnect(self) -> None:
        """Close the connection at once, as an interrupt of Spark's thread does."""
        self._connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.stream.close()
        self._connection.close()

    def _tell(self, *texts: bytes) -> None:
        for text in texts:
            write_with_length(text, self.stream)
        self.stream.flush()


@contextmanager
def source_runner(folder: Path, task: str) -> Iterator[SourceRunner]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(_WAIT_S)
        words = {"PORT": str(listening.getsockname()[1]), "SECRET": _SECRET.decode()}
        process = subprocess.Popen(
            [sys.executable, "-m", runner.__name__],
            env={**os.environ, **{f"PYTHON_WORKER_FACTORY_{name}": value for name, value in words.items()}},
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            connection, _ = listening.accept()
            connection.settimeout(_WAIT_S)
            with connection:
                found = SourceRunner(process, connection)
                found.begin(HeadraceSource({OPTION: task}), folder)
                yield found
        finally:
            process.kill()
            process.communicate()


@pytest.mark.slow
@pytest.mark.parametrize("asked", [False, True], ids=["while it waits", "while it works"])
def test_the_process_beside_the_driver_ends_without_a_word_when_spark_closes_its_connection(
    tmp_path: Path, asked: bool
) -> None:
    with source_runner(tmp_path, option()) as process:
        if asked:
            process.ask(runner.INITIAL_OFFSET_FUNC_ID)
        process.disconnect()
        _, said = process.process.communicate(timeout=_WAIT_S)
    assert said == ""


@pytest.mark.slow
def test_an_error_of_ours_beside_the_driver_is_told_to_spark(tmp_path: Path) -> None:
    versions, mark, task = option().partition("|")
    other = versions.replace('"DuckDB": "', '"DuckDB": "0.') + mark + task
    with source_runner(tmp_path, other) as process:
        process.ask(runner.INITIAL_OFFSET_FUNC_ID)
        assert read_int(process.stream) == SpecialLengths.PYTHON_EXCEPTION_THROWN
        told = process.stream.read(read_int(process.stream)).decode()
    assert "executors and driver differ" in told


def test_what_ctrl_c_does_is_left_to_the_process_that_starts_spark(spark_session: SparkSession) -> None:
    assert spark_session.sparkContext.applicationId
    handler = signal.getsignal(signal.SIGINT)
    assert "pyspark" not in str(getattr(handler, "__module__", ""))
