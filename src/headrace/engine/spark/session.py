"""Opens a Spark session with the settings that a run needs and those that the profile gives."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING

from headrace.errors import HeadraceError, ProfileError, RefusedError, TransientError

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

__all__ = ["LEAST", "SparkEndedError", "SparkWorkerError", "error_of_loss", "error_of_spark", "open_session"]

LEAST: Mapping[str, str] = {
    "spark.sql.streaming.pollingDelay": "100ms",
    "spark.sql.session.timeZone": "UTC",
    "spark.sql.streaming.numRecentProgressUpdates": "20",
    "spark.driver.memory": "1g",
    "spark.ui.enabled": "false",
    "spark.ui.showConsoleProgress": "false",
    "spark.driver.extraJavaOptions": "-Xss4m",
}
"""What is set where the profile says nothing.

Spark looks for secrets in the text of an error by a regular expression, which needs a deep stack.
"""

_PASSING = (
    "failed to connect back",
    "exited unexpectedly",
    "Connection refused",
    "ExecutorLostFailure",
    "executor loss",
)
"""What Spark says when a machine is slow or gone: a new process of Python has ten seconds to show itself."""


def open_session(name: str, conf: Mapping[str, str]) -> SparkSession:
    """Return the session of this process, made when there is none.

    Raises ProfileError when PySpark or Java is missing, RefusedError when the cluster says no.
    """
    try:
        from pyspark.sql import SparkSession
    except ImportError as error:
        raise ProfileError(
            "the Spark engine needs PySpark, which is not installed", fix="pip install 'headrace[spark]'"
        ) from error
    given = {"spark.master": "local[*]", **LEAST, **conf}
    if given["spark.master"].startswith("local"):
        # Workers on this machine run the Python that runs us; elsewhere only the profile can know it.
        os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
        os.environ.setdefault("SPARK_LOCAL_IP", "127.0.0.1")
    builder = SparkSession.builder.appName(f"headrace {name}")
    for key, value in given.items():
        builder = builder.config(key, value)
    try:
        session = builder.getOrCreate()
    except Exception as error:
        raise _not_opened(given["spark.master"], error) from error
    session.sparkContext.setLogLevel("ERROR")
    return session


def _not_opened(master: str, error: Exception) -> HeadraceError:
    said = str(error).strip().split("\n", 1)[0]
    if "JAVA" in said.upper():
        return ProfileError(
            f"Spark does not start: {said}", fix="install Java 17 or later, and set JAVA_HOME"
        )
    return RefusedError(
        f"Spark at {master} does not start: {said}", fix="see spark.master and the settings under spark."
    )


class SparkWorkerError(TransientError):
    """A process or a machine that works for Spark ended, or never came."""


class SparkEndedError(RefusedError):
    """Spark's own process, beside this one, ended: all work goes through it."""


def error_of_loss(error: BaseException) -> HeadraceError:
    """Return our error for a call to Spark's own process that got no answer, or one that it refused."""
    text = str(error)
    if "An error occurred while calling" in text:
        return error_of_spark(text.partition("\n")[2] or text)
    return SparkEndedError(
        "Spark's own process is gone",
        fix="see whether the system ended it (spark.driver.memory), then run again: nothing is lost",
    )


def error_of_spark(text: str) -> HeadraceError:
    """Return our error for what Spark says of a query that failed.

    Errors of the data source's own process come as a text that names our class.
    """
    import re

    import headrace.errors as ours

    found = re.search(r"headrace\.errors\.(\w+Error): ([^\n]*)", text)
    kind = getattr(ours, found[1], None) if found else None
    if found and isinstance(kind, type) and issubclass(kind, HeadraceError):
        return kind(found[2])
    if any(words in text for words in _PASSING):
        return SparkWorkerError(f"Spark lost a worker: {_first_line(text)}")
    return RefusedError(
        f"Spark stopped the query: {_first_line(text)}", fix="see Spark's own log; nothing is lost: run again"
    )


def _first_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[0][:300] if lines else "no reason given"
