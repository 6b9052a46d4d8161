"""Spark for tests: one session for all tests of a process, and clusters of a master and workers.

To start a session takes longer than most tests.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from headrace.engine.spark.session import open_session
from servers.guard import GuardedProcess, free_ports, wait_until
from servers.jars import POMS, fetched, java
from tracing import untraced_processes

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

__all__ = ["SPARK_CONF", "SparkCluster", "SparkWorker", "jars_for_client", "local_spark", "spark_cluster"]

SPARK_CONF = {
    "spark.master": "local[2]",
    "spark.driver.memory": "1g",
    "spark.sql.shuffle.partitions": "1",
    "spark.default.parallelism": "2",
}
"""Small and without a page of its own; what a profile of a test says under `spark.`."""

_START_S_MAX = 120
_ENDED_S_MAX = 60


@contextmanager
def local_spark() -> Iterator[SparkSession]:
    """A session on two threads of this process."""
    with untraced_processes():  # Spark kills its processes of Python before they could tell what they ran
        session = open_session("tests", SPARK_CONF)
    try:
        yield session
    finally:
        session.stop()


def jars_for_client(name: str) -> Path:
    """Return the folder of jars of a server that must be of the version of PySpark's client of Hadoop.

    They are fetched when absent: only long tests need them. Raises ServerMissing.
    """
    import pyspark

    jars = Path(pyspark.__file__).parent / "jars"
    (client,) = jars.glob("hadoop-client-api-*.jar")
    version = client.stem.removeprefix("hadoop-client-api-")
    assert f"<version>{version}</version>" in (POMS / name / "pom.xml").read_text(), version
    return fetched(name)


@dataclass
class SparkWorker:
    """A worker of a standalone cluster: a process that starts executors."""

    process: GuardedProcess

    def executors(self) -> list[psutil.Process]:
        """The executors that it runs."""
        try:
            return psutil.Process(self.process.pid).children()
        except psutil.NoSuchProcess:
            return []


@dataclass
class SparkCluster:
    """A master and its workers on the loopback.

    conf  what a driver has to say under `spark.` to use it
    page  where the master shows itself
    """

    master: str
    page: str
    workers: list[SparkWorker] = field(default_factory=list)

    @property
    def conf(self) -> Mapping[str, str]:
        return {
            **SPARK_CONF,
            "spark.master": self.master,
            "spark.driver.host": "127.0.0.1",
            "spark.driver.bindAddress": "127.0.0.1",
            "spark.executor.memory": "512m",
        }

    def executors(self) -> list[psutil.Process]:
        """The executors that all workers run."""
        return [each for worker in self.workers for each in worker.executors()]


@contextmanager
def spark_cluster(
    workers: int = 2, *, environment: Mapping[str, str] | None = None
) -> Iterator[SparkCluster]:
    """Run a master and so many workers of one core, by the classes of the installed PySpark.

    `environment` is added to that of the workers, and so of executors. In the end, nothing runs any more.
    """
    import pyspark

    home = Path(pyspark.__file__).parent
    port, page, *pages = free_ports(2 + workers)
    command = [java(17), "-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-cp", f"{home}/jars/*"]
    with ExitStack() as undo:
        folder = Path(tempfile.mkdtemp(prefix="headrace-spark-"))
        undo.callback(shutil.rmtree, folder, ignore_errors=True)
        given = {
            "SPARK_HOME": str(home),
            "SPARK_SCALA_VERSION": "2.13",  # as Spark's own scripts tell their processes
            "SPARK_LOCAL_IP": "127.0.0.1",
            "SPARK_WORKER_DIR": str(folder),
            **(environment or {}),
        }
        deploy = "org.apache.spark.deploy"
        log = folder / "master.log"
        place = ["--host", "127.0.0.1", "--port", str(port), "--webui-port", str(page)]
        master = GuardedProcess([*command, f"{deploy}.master.Master", *place], output=log, environment=given)
        undo.callback(master.stop)
        wait_until(
            lambda: "I have been elected leader" in _text(log),
            what="Spark's master is up",
            seconds=_START_S_MAX,
            process=master,
        )
        cluster = SparkCluster(f"spark://127.0.0.1:{port}", f"http://127.0.0.1:{page}")
        for number, page in enumerate(pages):
            log = folder / f"worker-{number}.log"
            size = ["--cores", "1", "--memory", "1g", "--host", "127.0.0.1", "--webui-port", str(page)]
            words = [*command, f"{deploy}.worker.Worker", *size, cluster.master]
            worker = GuardedProcess(words, output=log, environment=given)
            undo.callback(worker.stop)
            cluster.workers.append(SparkWorker(worker))
        for worker in cluster.workers:
            wait_until(
                lambda: "Successfully registered with master" in _text(worker.process.output),  # noqa: B023
                what="a worker of Spark is registered",
                seconds=_START_S_MAX,
                process=worker.process,
            )
        yield cluster
        left = cluster.executors()
    # A worker takes its executors with it, in good time.
    _, alive = psutil.wait_procs(left, _ENDED_S_MAX)
    assert not alive, f"executors that outlive their workers: {alive}"


def _text(file: Path) -> str:
    return file.read_text(errors="replace") if file.exists() else ""
