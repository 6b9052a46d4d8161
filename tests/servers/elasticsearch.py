"""Elasticsearch and OpenSearch: a node of each, on free ports of the loopback, with a small heap."""

from __future__ import annotations

import json
import shutil
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from servers.guard import GuardedProcess, free_ports, wait_until
from servers.jars import jars_of, java

__all__ = [
    "JAVA_MIN",
    "SearchServer",
    "search_here",
    "search_server",
    "shared_elasticsearch",
    "shared_opensearch",
]

JAVA_MIN = {"elasticsearch": 17, "opensearch": 21}
_PROGRAMS = {"elasticsearch": "RunElasticsearch", "opensearch": "RunOpenSearch"}
_JVM = ("-Xms256m", "-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-XX:-UsePerfData")
_OPENED = {
    # Elasticsearch 7.10 was made for Java 15 and earlier: later ones close what it looks into.
    "elasticsearch": ("--add-opens=java.base/java.lang=ALL-UNNAMED", "-Djava.security.manager=allow"),
    "opensearch": ("--enable-native-access=ALL-UNNAMED",),
}


@dataclass
class SearchServer:
    """A node. `stop`, `kill` and `start` keep its folder and ports, so it comes back as the same one."""

    url: str
    folder: Path
    command: Sequence[str]
    process: GuardedProcess | None = field(default=None, init=False)

    def start(self) -> None:
        """Start it and return when it takes writes."""
        self.process = GuardedProcess(self.command, output=self.folder / "server.log")
        wait_until(self._answers, what=f"{self.url} answers", seconds=180, process=self.process)

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/_cluster/health", timeout=5) as answer:
                return json.load(answer)["status"] in ("yellow", "green")
        except (OSError, urllib.error.URLError, ValueError):
            return False

    def stop(self) -> None:
        """End it in good order."""
        if self.process is not None:
            self.process.stop()

    def kill(self) -> None:
        """Kill -9."""
        assert self.process is not None
        self.process.kill()


def search_here(product: str) -> None:
    """Return when a server of that product can be started here. Raises ServerMissing."""
    jars_of(product)
    java(JAVA_MIN[product])


@contextmanager
def search_server(product: str) -> Iterator[SearchServer]:
    """Run a node of "elasticsearch" or "opensearch"."""
    jars, program = jars_of(product), java(JAVA_MIN[product])
    http, transport = free_ports(2)
    folder = Path(tempfile.mkdtemp(prefix=f"headrace-{product}-"))
    source = Path(__file__).parent / "runners" / f"{_PROGRAMS[product]}.java"
    command = [program, *_JVM, *_OPENED[product], "-cp", f"{jars}/*", str(source)]
    server = SearchServer(
        f"http://127.0.0.1:{http}", folder, [*command, str(folder / "node"), str(http), str(transport)]
    )
    try:
        server.start()
        yield server
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def shared_elasticsearch() -> Iterator[str]:
    """Run the Elasticsearch that test processes share, and give its address (see shared.py)."""
    with search_server("elasticsearch") as server:
        yield server.url


@contextmanager
def shared_opensearch() -> Iterator[str]:
    """Run the OpenSearch that test processes share, and give its address (see shared.py)."""
    with search_server("opensearch") as server:
        yield server.url
