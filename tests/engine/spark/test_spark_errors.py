"""What Spark says of a failure becomes an error that says who must act."""

from __future__ import annotations

from pathlib import Path

import pytest

from headrace.engine.spark.session import (
    SparkEndedError,
    SparkWorkerError,
    error_of_loss,
    error_of_spark,
    error_of_start,
    open_session,
)
from headrace.errors import IntegrityError, InternalError, ProfileError, RefusedError, TransientError
from headrace.log.kafka.connection import TopicUnknownError
from headrace.operate.alerting import _words_of

_TRACE = """[STREAM_FAILED] Query [id = 1, runId = 2] terminated with exception: Traceback:
  File "positions.py", line 75, in _looked
    known = require_same(place, self._topics[name], look_at(connection))
headrace.errors.{error}
  fix: its positions mean nothing any more

SQLSTATE: XXKST"""


_PYTHON_TRACE = """An exception was thrown from the Python worker: Traceback (most recent call last):
  File "worker.py", line 12, in main
    import duckdb
ModuleNotFoundError: No module named 'duckdb'
"""


def failed_job(raised: str) -> str:
    """What Spark says of a job in which Python raised an error of its own."""
    trace = f"""org.apache.spark.api.python.PythonException: Traceback (most recent call last):
  File "worker.py", line 12, in main
    process()
    ~~~~~~~^^
{raised}

\tat org.apache.spark.api.python.BasePythonRunner.handle(PythonRunner.scala:581)
"""
    return (
        "[STREAM_FAILED] Query [id = 1, runId = 2] terminated with exception: Job aborted SQLSTATE: XXKST\n"
        f"org.apache.spark.SparkException: Job aborted due to stage failure: Task 0 failed: {trace}"
        f"Driver stacktrace:\n\tat org.apache.spark.scheduler.DAGScheduler.abort(DAGScheduler.scala:1)\n"
        f"Caused by: {trace}\t... 1 more\n"
    )


@pytest.mark.parametrize(
    "raised",
    [
        "ValueError: could not read 'card 4711'",
        "duckdb.duckdb.ConversionException: Conversion Error: Could not convert string 'card 4711' to INT32",
        "pyarrow.lib.ArrowInvalid: Could not convert 'card 4711' with type str",
        "ValueError: card 4711 said No space left on device",
        "ValueError: of a record\njava.lang.IllegalStateException: card 4711",
    ],
)
def test_what_python_raised_over_a_record_is_a_bug_of_which_nobody_elsewhere_is_told_more_than_that(
    raised: str,
) -> None:
    error = error_of_spark(failed_job(raised), "/shop/spark.log")
    assert type(error) is InternalError
    assert raised.partition("\n")[0] in error.message
    assert "/shop/spark.log" in error.message
    assert _words_of(error) == ("InternalError", "")


@pytest.mark.parametrize(
    ("raised", "told", "fix"),
    [
        ("ModuleNotFoundError: No module named 'duckdb'", "No module named 'duckdb'", "spark.environment"),
        ("OSError: [Errno 28] No space left on device", "OSError: [Errno 28] No space left", "disk"),
        ("PermissionError: [Errno 13] Permission denied: '/card 4711'", "Permission denied", "spark.log"),
        ("MemoryError", "MemoryError", "memory"),
        ("pyarrow.lib.ArrowMemoryError: malloc of size 4711 failed", "ArrowMemoryError", "memory"),
        (
            "duckdb.duckdb.OutOfMemoryException: Out of Memory Error: failed to pin card 4711",
            "OutOfMemoryException",
            "memory",
        ),
        (
            'duckdb.duckdb.IOException: IO Error: Could not write file "/card 4711": No space left on device',
            "IOException: No space left on device",
            "disk",
        ),
    ],
)
def test_what_an_operator_of_the_cluster_can_mend_is_told_without_what_records_may_say(
    raised: str, told: str, fix: str
) -> None:
    error = error_of_spark(failed_job(raised), "/shop/spark.log")
    assert type(error) is RefusedError
    assert told in error.message
    assert fix in error.fix
    assert "spark.log" in error.fix
    assert "4711" not in str(error)


def test_a_python_that_does_not_start_says_what_it_lacks() -> None:
    error = error_of_spark(
        "org.apache.spark.SparkException: Job aborted: \nError from python worker:\n"
        "  /usr/bin/python3: Error while finding module specification for 'pyspark.daemon' "
        "(ModuleNotFoundError: No module named 'pyspark')\nPYTHONPATH was:\n  /opt\n"
        "org.apache.spark.SparkException: EOFException occurred while reading the port number\n"
    )
    assert type(error) is RefusedError
    assert "/usr/bin/python3: Error while finding module specification" in error.message
    assert "spark.pyspark.python" in error.fix


def test_a_bug_that_was_met_beside_the_driver_is_one_here() -> None:
    error = error_of_spark(_TRACE.format(error="InternalError: table 'a' was given files of another epoch"))
    assert type(error) is InternalError
    assert "files of another epoch" in error.message


@pytest.mark.parametrize(
    ("text", "kind", "words"),
    [
        (_TRACE.format(error="IntegrityError: topic 'a': it was deleted"), IntegrityError, "it was deleted"),
        (_TRACE.format(error="TransientError: no answer from b:1"), TransientError, "no answer from b:1"),
        (_TRACE.format(error="IntegrityError: it was deleted"), IntegrityError, "fix: its positions mean"),
        (
            _TRACE.replace("errors.", "log.kafka.connection.").format(error="TopicUnknownError: gone"),
            TopicUnknownError,
            "gone",
        ),
        (_PYTHON_TRACE, RefusedError, "ModuleNotFoundError: No module named 'duckdb'"),
        ("Python worker failed to connect back.", SparkWorkerError, "lost a worker"),
        ("Job aborted: ExecutorLostFailure (executor 1 exited)", SparkWorkerError, "lost a worker"),
        ("[UNSUPPORTED] something else", RefusedError, "something else"),
        ("", RefusedError, "no reason given"),
    ],
)
def test_a_query_that_failed_says_why(text: str, kind: type[Exception], words: str) -> None:
    error = error_of_spark(text)
    assert type(error) is kind
    assert words in str(error)


def test_a_process_of_spark_that_is_gone_is_told_apart_from_a_call_that_failed() -> None:
    assert type(error_of_loss(ConnectionRefusedError(111, "Connection refused"))) is SparkEndedError
    called = Exception("An error occurred while calling o1.collect.\n: Python worker exited unexpectedly")
    assert type(error_of_loss(called)) is SparkWorkerError


def test_a_setting_that_spark_refuses_is_told_and_not_taken_for_a_missing_java() -> None:
    refused = Exception(
        "An error occurred while calling None.org.apache.spark.api.java.JavaSparkContext.\n"
        ": java.lang.IllegalArgumentException: spark.network.timeout is too short\n\tat org.apache"
    )
    error = error_of_start("spark://host:7077", refused)
    assert type(error) is RefusedError
    assert "spark.network.timeout is too short" in str(error)


def test_a_java_that_is_missing_is_told_apart_from_one_that_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended = Exception("[JAVA_GATEWAY_EXITED] Java gateway process exited before sending its port number.")
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "install Java 17" in str(error_of_start("local", ended))
    (tmp_path / "java").touch(0o755)
    told = str(error_of_start("local", ended))
    assert "install" not in told
    assert "what Java said stands above" in told


@pytest.mark.parametrize(
    "master", ["foo", "localhost:7077", "http://host:7077", "spark://", "yarn-client", ""]
)
def test_a_master_that_is_none_is_told_before_java_is_started(master: str) -> None:
    with pytest.raises(ProfileError, match=r"spark\.master: Spark knows no"):
        open_session("shop", {"spark.master": master})


def test_a_master_that_does_not_answer_is_told_instead_of_what_spark_says_once_it_gave_up() -> None:
    gave_up = Exception(
        "An error occurred while calling None.org.apache.spark.sql.classic.SparkSession.\n"
        ": java.lang.IllegalStateException: Cannot call methods on a stopped SparkContext.\n"
        "This stopped SparkContext was created at:\n"
    )
    error = error_of_start("spark://host:7077", gave_up)
    assert type(error) is RefusedError
    assert "Spark at spark://host:7077 does not start: no master answers there" in error.message
    assert "that it can be reached from here" in error.fix


def test_a_missing_pyspark_is_answered_with_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "pyspark.sql", None)
    with pytest.raises(ProfileError, match=r"headrace\[spark\]"):
        open_session("shop", {})
