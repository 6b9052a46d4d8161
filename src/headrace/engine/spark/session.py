"""Opens a Spark session with the settings that a run needs and those that the profile gives."""

from __future__ import annotations

import atexit
import builtins
import os
import re
import shutil
import signal
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headrace.engine.spark.settings import SparkSettings
from headrace.errors import HeadraceError, InternalError, ProfileError, RefusedError, TransientError

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

__all__ = [
    "LEAST",
    "SparkEndedError",
    "SparkWorkerError",
    "conf_with_environment",
    "delete_matching",
    "error_of_loss",
    "error_of_spark",
    "error_of_start",
    "open_session",
    "register_source",
]

LEAST: Mapping[str, str] = {
    "spark.sql.streaming.pollingDelay": "100ms",
    "spark.sql.session.timeZone": "UTC",
    "spark.sql.streaming.numRecentProgressUpdates": "20",
    "spark.driver.memory": "1g",
    "spark.ui.enabled": "false",
    "spark.ui.showConsoleProgress": "false",
    "spark.metrics.conf.*.sink.prometheusServlet.class": "org.apache.spark.metrics.sink.PrometheusServlet",
    "spark.metrics.conf.*.sink.prometheusServlet.path": "/metrics/prometheus",
    "spark.driver.extraJavaOptions": "-Xss4m",
}
"""What is set where the profile says nothing.

Where Spark's page is served, it has the driver's metrics for Prometheus, as `export prometheus` says. Spark
looks for secrets in the text of an error by a regular expression, which needs a deep stack.
"""

_PYTHON = "spark.pyspark.python"
_PATH = "spark.executorEnv.PYTHONPATH"
_UNPACKED = "headrace-environment"
"""The folder beside a working executor into which Spark unpacks the archive."""

_PASSING = (
    "failed to connect back",
    "exited unexpectedly",
    "Connection refused",
    "ExecutorLostFailure",
    "executor loss",
)
"""What Spark says when a machine is slow or gone: a new process of Python has ten seconds to show itself."""


_ITS_LOG = "Spark's own log"


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
    _check_master(given["spark.master"])
    for key, value in _driver_environment(given["spark.master"]).items():
        os.environ.setdefault(key, value)
    # What Spark itself asks for, beside the data source, which runs on executors alone.
    given["spark.sql.execution.pyspark.python"] = _python_of_executors(given)
    builder = SparkSession.builder.appName(f"headrace {name}")
    for key, value in given.items():
        builder = builder.config(key, value)
    try:
        with _ctrl_c_as_before():
            session = builder.getOrCreate()
    except Exception as error:
        raise error_of_start(given["spark.master"], error) from error
    session.sparkContext.setLogLevel("ERROR")
    return session


def _check_master(master: str) -> None:
    """Raise ProfileError for what is no address of a cluster: Spark says of it that Java ended."""
    if not _MASTER.fullmatch(master):
        raise ProfileError(
            f"spark.master: Spark knows no '{master}'",
            fix="local[*] for this machine, spark://HOST:7077, yarn, or k8s://https://HOST:PORT",
        )


_MASTER = re.compile(r"local(-cluster)?(\[[^\]]*\])?|spark://.+|k8s://.+|yarn")


@contextmanager
def _ctrl_c_as_before() -> Iterator[None]:
    """Leave it to the process what Ctrl-C does: PySpark sets a handler that ends what works at that moment.

    `headrace handover` starts Spark while it waits for a stop of its own.
    """
    before = signal.getsignal(signal.SIGINT)
    try:
        yield
    finally:
        if before is not None and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, before)


def _driver_environment(master: str) -> Mapping[str, str]:
    """Return what the driver of a master needs in its environment, where nothing else stands there."""
    # What Spark starts beside the driver before it knows of our data source.
    found = {"PYSPARK_DRIVER_PYTHON": sys.executable}
    if master.startswith("local"):
        found["SPARK_LOCAL_IP"] = "127.0.0.1"
    if master.startswith(("local", "spark://")):  # other clusters' executors are sent what is in it
        found["SPARK_HOME"] = _home_without_archives()
    return found


@cache
def _home_without_archives() -> str:
    """Return a folder to take for Spark's home, in which PySpark's own archive is not found.

    Each process of Python that Spark starts would compile it anew, for two seconds of work, and has ten
    seconds to show itself. Without the archive it takes the installed package, compiled already.
    """
    import pyspark

    installed = Path(pyspark.__file__).parent
    folder = Path(tempfile.mkdtemp(prefix="headrace-spark-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    for name in ("bin", "jars", "sbin"):
        (folder / name).symlink_to(installed / name)
    return str(folder)


def _python_of_executors(conf: Mapping[str, str]) -> str:
    """Return the program that executors run: where nothing is said, the one that runs us."""
    return conf.get(_PYTHON) or os.environ.get("PYSPARK_PYTHON") or sys.executable


def register_source(session: SparkSession) -> None:
    """Make our data source known to the session, and let its executors run the Python that was told."""
    from headrace.engine.spark.source import HeadraceSource

    # Its part beside the driver runs by the program that the class is registered with: ours.
    session.sparkContext.pythonExec = sys.executable
    session.dataSource.register(HeadraceSource)
    session.sparkContext.pythonExec = str(session.conf.get("spark.sql.execution.pyspark.python"))


def delete_matching(session: SparkSession, pattern: str) -> None:
    """Delete the folders that `pattern` names (a URI, with *), by the file system that Spark has for it."""
    context: Any = session.sparkContext  # PySpark has no word for it
    path = context._jvm.org.apache.hadoop.fs.Path(pattern)
    files = path.getFileSystem(context._jsc.hadoopConfiguration())
    for found in files.globStatus(path) or ():
        files.delete(found.getPath(), True)


def conf_with_environment(settings: SparkSettings, folder: Path) -> Mapping[str, str]:
    """Return Spark's settings, and with them the archive of packages where executors are to get one.

    The archive is kept in `folder`. Raises ProfileError for a package that is not installed here.
    """
    if settings.environment != "archive":
        return settings.conf
    from headrace.engine.spark.environment import pack_environment

    archive = f"{pack_environment(folder, settings.environment_packages)}#{_UNPACKED}"
    path = settings.conf.get(_PATH)
    return {
        _PYTHON: f"python{sys.version_info.major}.{sys.version_info.minor}",
        **settings.conf,
        "spark.archives": ",".join(filter(None, (settings.conf.get("spark.archives"), archive))),
        _PATH: f"{_UNPACKED}:{path}" if path else _UNPACKED,
    }


def error_of_start(master: str, error: Exception) -> HeadraceError:
    """Return our error for a session that does not open."""
    text = str(error)
    if "An error occurred while calling" in text:  # what it was stands in the next line
        text = text.partition("\n")[2].removeprefix(": ")
    said = _first_line(text)
    if "JAVA_GATEWAY" in said or "JAVA_HOME" in said:
        found = shutil.which("java") or os.environ.get("JAVA_HOME")
        return ProfileError(
            f"Spark does not start: {said}",
            fix="what Java said stands above: it may be older than 17, or refuse a setting under spark. "
            "(such as spark.driver.memory)"
            if found
            else "install Java 17 or later, and set JAVA_HOME",
        )
    if "stopped SparkContext" in said:  # what Spark says after it gave up, instead of why it did
        return RefusedError(
            f"Spark at {master} does not start: no master answers there, or it ended this application",
            fix="see that the master runs, that spark.master is the address on its page, and that it can be "
            "reached from here",
        )
    return RefusedError(
        f"Spark at {master} does not start: {said}", fix="see spark.master and the settings under spark."
    )


class SparkWorkerError(TransientError):
    """A process or a machine that works for Spark ended, or never came."""


class SparkEndedError(RefusedError):
    """Spark's own process, beside this one, ended: all work goes through it."""


def error_of_loss(error: BaseException, log: str = _ITS_LOG) -> HeadraceError:
    """Return our error for a call to Spark's own process that got no answer, or one that it refused."""
    text = str(error)
    if "An error occurred while calling" in text:
        return error_of_spark(text.partition("\n")[2] or text, log)
    return SparkEndedError(
        "Spark's own process is gone",
        fix="see whether the system ended it (spark.driver.memory), then run again: nothing is lost",
    )


def error_of_spark(text: str, log: str = _ITS_LOG) -> HeadraceError:
    """Return our error for what Spark says of a query that failed; `log` is where it says more.

    Errors of the data source's own process come as a text that names our class. What Python raised besides is
    a bug, whose words may hold what a record does, unless whoever runs the cluster can mend it.
    """
    found = _OURS.search(text)
    kind = next((kind for kind in _kinds(HeadraceError) if found and kind.__name__ == found["kind"]), None)
    if found and kind:
        if issubclass(kind, InternalError):
            return kind(found["message"])
        return kind(found["message"], fix=found["fix"] or "")
    if absent := _NO_FILES.search(text):
        return ProfileError(
            f"spark.checkpoint: Spark has no classes for such a place: {absent[0]}",
            fix="for s3a:// name in spark.jars.packages org.apache.hadoop:hadoop-aws, of the version of "
            "PySpark's hadoop-client-api; or leave spark.checkpoint out: nothing rests on it",
        )
    if any(words in text for words in _PASSING):
        return SparkWorkerError(f"Spark lost a worker: {_first_line(text)}")
    if unfit := _NO_START.search(text):
        return RefusedError(
            f"the Python of Spark's executors does not start: {unfit[1][:300]}",
            fix=f"install what it lacks there, or name another (spark.pyspark.python); more stands in {log}",
        )
    if traces := _TRACEBACK.findall(text):
        return _error_of_python(traces[-1], log)
    raised = _RAISED.findall(text)
    reason = raised[-1][:300] if raised else _first_line(text)
    return RefusedError(f"Spark stopped the query: {reason}", fix=f"see {log}; nothing is lost: run again")


def _error_of_python(raised: str, log: str) -> HeadraceError:
    """Return our error for the last line of a traceback of Python."""
    name, _, words = raised.partition(":")
    kind = getattr(builtins, name, None)
    if isinstance(kind, type) and issubclass(kind, ImportError):
        return RefusedError(
            f"Spark stopped the query: {raised[:300]}",
            fix="install it for the Python of every executor (spark.pyspark.python), or let it be sent: "
            f'spark.environment = "archive"; more stands in {log}',
        )
    own = name.rpartition(".")[2]
    if own.endswith("MemoryError") or own == "OutOfMemoryException":
        return RefusedError(
            f"Spark stopped the query: {own}",
            fix="give the Python of executors more memory (spark.executor.memoryOverhead), or let a "
            "micro-batch hold less (engine_settings.epoch_bytes_max); "
            f"more stands in {log}; nothing is lost: run again",
        )
    full = _FULL in words
    if (isinstance(kind, type) and issubclass(kind, OSError)) or (own == "IOException" and full):
        # Without what stands around: which file it is, a record may have said.
        why = _SYSTEM.search(words)
        known = why[0] if why else _FULL if full else ""
        more = "make room on the disks of executors (spark.local.dir); more stands in" if full else "see"
        return RefusedError(
            f"Spark stopped the query: {own}{f': {known}' if known else ''}",
            fix=f"{more} {log}; nothing is lost: run again",
        )
    return InternalError(f"Spark stopped the query: {raised[:300]} (the whole trace: {log})")


_OURS = re.compile(
    r"^headrace\.[\w.]+\.(?P<kind>\w+Error): (?P<message>[^\n]*)(\n\s+fix: (?P<fix>[^\n]*))?", re.M
)
_NO_FILES = re.compile(r'Class org\.apache\.hadoop\.fs\.\S+ not found|No FileSystem for scheme "[^"]*"')
"""What Hadoop's client says of a URI that is read by classes which are not here."""
_TRACEBACK = re.compile(r"Traceback \(most recent call last\):\n(?:[ \t][^\n]*\n)+([^\s][^\n]*)")
"""The first line behind a traceback of Python: kind and words of what was raised."""
_NO_START = re.compile(r"Error from python worker:\n\s+([^\n]+)")
_SYSTEM = re.compile(r"\[Errno \d+\] [^:]*")
_FULL = "No space left on device"
"""What DuckDB says of it, which keeps no number."""
_RAISED = re.compile(r"^((?:\w+\.)*\w+(?:Error|Exception): [^\n]+)", re.M)
"""What Java raised."""


def _kinds(kind: type[HeadraceError]) -> Iterator[type[HeadraceError]]:
    yield kind
    for below in kind.__subclasses__():
        yield from _kinds(below)


def _first_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[0][:300] if lines else "no reason given"
