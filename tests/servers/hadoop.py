"""HDFS and YARN: a name node, a data node and, where asked for, YARN's managers, in one process."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil

from servers.guard import GuardedProcess, free_ports, wait_until
from servers.jars import java
from servers.spark import jars_for_client

__all__ = ["Hadoop", "hadoop", "hadoop_here"]

_NAME = "hadoop-minicluster"
_JVM = ("-Xms128m", "-Xmx768m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-XX:-UsePerfData")
_LOGGED = "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn"
_START_S_MAX = 300
_ENDED_S_MAX = 60


@dataclass(frozen=True)
class Hadoop:
    """A cluster.

    files  where HDFS is, as a URI without a path
    conf   a folder for HADOOP_CONF_DIR
    page   where the name node answers by HTTP
    """

    files: str
    conf: Path
    page: str

    def names(self, path: str = "") -> list[str]:
        """Return the paths of all files of HDFS below `path`."""
        answer = httpx.get(f"{self.page}/webhdfs/v1/{path}", params={"op": "LISTSTATUS"}, timeout=60)
        found = []
        for each in answer.raise_for_status().json()["FileStatuses"]["FileStatus"]:
            name = f"{path}/{each['pathSuffix']}".lstrip("/")
            found += self.names(name) if each["type"] == "DIRECTORY" else [name]
        return found


def hadoop_here() -> None:
    """Return when it can be started here; its jars are fetched when absent. Raises ServerMissing."""
    jars_for_client(_NAME)
    java(17)


@contextmanager
def hadoop(*, yarn: bool = False) -> Iterator[Hadoop]:
    """Run HDFS and, with `yarn`, YARN with one node. In the end, nothing that it started runs any more."""
    jars, program = jars_for_client(_NAME), java(17)
    (port,) = free_ports(1)
    source = Path(__file__).parent / "runners" / "RunHadoop.java"
    with ExitStack() as undo:
        folder = Path(tempfile.mkdtemp(prefix="headrace-hadoop-"))
        undo.callback(shutil.rmtree, folder, ignore_errors=True)
        conf, log = folder / "conf", folder / "server.log"
        conf.mkdir()
        words = [str(source), str(folder), str(port), str(conf), *(["yarn"] if yarn else [])]
        # YARN's small cluster makes its folders where it was started.
        command = ["env", f"--chdir={folder}", program, *_JVM, _LOGGED, "-cp", f"{jars}/*", *words]
        home = {"JAVA_HOME": str(Path(program).parents[1])}  # containers are started with it
        process = GuardedProcess(command, output=log, environment=home)
        undo.callback(process.stop)
        wait_until(
            lambda: _ready(log) is not None, what="Hadoop is up", seconds=_START_S_MAX, process=process
        )
        yield Hadoop(f"hdfs://127.0.0.1:{port}", conf, _ready(log) or "")
        left = psutil.Process(process.pid).children(recursive=True)
    _, alive = psutil.wait_procs(left, _ENDED_S_MAX)
    assert not alive, f"containers that outlive their cluster: {alive}"


def _ready(log: Path) -> str | None:
    """Return where the name node answers, once all is up."""
    lines = log.read_text(errors="replace").splitlines() if log.exists() else []
    return next((line.split()[1] for line in lines if line.startswith("ready http")), None)
