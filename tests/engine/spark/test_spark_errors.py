"""What Spark says of a failure becomes an error that says who must act."""

from __future__ import annotations

import pytest

from headrace.engine.spark.session import (
    SparkEndedError,
    SparkWorkerError,
    error_of_loss,
    error_of_spark,
    error_of_start,
    open_session,
)
from headrace.errors import IntegrityError, ProfileError, RefusedError, TransientError
from headrace.log.kafka.connection import TopicUnknownError

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
    missing = Exception("[JAVA_GATEWAY_EXITED] Java gateway process exited before sending its port number.")
    assert "Java 17" in str(error_of_start("local", missing))


def test_a_missing_pyspark_is_answered_with_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "pyspark.sql", None)
    with pytest.raises(ProfileError, match=r"headrace\[spark\]"):
        open_session("shop", {})
