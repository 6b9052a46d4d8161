"""What a case is, how large cases are, and the servers of the tests that they run against."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Sizes:
    """How many rows each case writes, and how many are one chunk."""

    rows: int = 1_000_000
    delta_rows: int = 5_000_000
    cassandra_rows: int = 100_000
    events: int = 1_000_000
    chunk: int = 250_000
    search_chunk: int = 50_000
    repetitions: int = 3


QUICK = Sizes(
    rows=20_000, delta_rows=100_000, cassandra_rows=3_000, events=30_000, chunk=10_000, search_chunk=5_000,
    repetitions=1,
)  # fmt: skip


@dataclass(frozen=True)
class Case:
    """Contestants by name, the peer first and Headrace last; each returns its seconds for equal work.

    bar   the least ratio of the peer's seconds to ours; None: it is measured, and no bar is set
    """

    title: str
    bar: float | None
    contestants: Mapping[str, Callable[[], float]]
    rows: int


def _tests() -> None:
    """Let the servers of the tests be imported."""
    if str(ROOT / "tests") not in sys.path:
        sys.path.insert(0, str(ROOT / "tests"))


@contextmanager
def postgresql_server() -> Iterator[str]:
    """Run PostgreSQL and give its dsn."""
    _tests()
    from servers.postgresql import postgres_server

    with postgres_server({"shared_buffers": "256MB", "max_wal_size": "4GB"}) as server:
        yield server.dsn()


@contextmanager
def search_server(product: str) -> Iterator[str]:
    """Run Elasticsearch or OpenSearch and give its address."""
    _tests()
    from servers.elasticsearch import search_server as server_of
    from servers.jars import fetched

    fetched(product)
    with server_of(product) as server:
        yield server.url


@contextmanager
def cassandra_server() -> Iterator[str]:
    """Run Cassandra and give its `host:port`."""
    _tests()
    from servers.cassandra import cassandra_node
    from servers.jars import fetched

    fetched("cassandra")
    with cassandra_node() as node:
        yield f"{node.host}:{node.port}"
