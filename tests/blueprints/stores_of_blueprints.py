"""The stores of the blueprints on their real servers, read back with clients of their own."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg
from psycopg.rows import dict_row
from search_target import SearchTarget
from targets import DeltaTarget, ParquetTarget

from servers.cassandra import connected

__all__ = ["STORES", "Place"]

Rows = list[dict[str, Any]]


@dataclass
class Place:
    """One place of a test's own in a store.

    environment  what the profile takes from it
    changed      text of `headrace.toml` and what stands there instead
    rows         what a table holds, as the store's own client reads it
    prepare      makes what has to be there, from the project's folder
    closed_only  whether windows are there once they are closed, and no sooner
    """

    rows: Callable[[str], Rows]
    environment: Mapping[str, str] = field(default_factory=dict)
    changed: Mapping[str, str] = field(default_factory=dict)
    prepare: Callable[[Path], None] = lambda folder: None
    closed_only: bool = False


@contextmanager
def _warehouse(kind: str, folder: Path) -> Iterator[Place]:
    where = folder / "warehouse" / "here"
    target = ParquetTarget(where) if kind == "parquet" else DeltaTarget(str(where))
    changed = {
        f'"parquet", path = "warehouse/{place}"': f'"{kind}", path = "warehouse/here/"'
        for place in ("", "kafka/", "cluster/")
    }
    yield Place(target.rows, changed=changed, closed_only=True)


@contextmanager
def parquet(server: str, folder: Path) -> Iterator[Place]:
    """Files below the project's folder."""
    with _warehouse("parquet", folder) as place:
        yield place


@contextmanager
def delta(server: str, folder: Path) -> Iterator[Place]:
    """Delta tables below the project's folder."""
    with _warehouse("delta", folder) as place:
        yield place


@contextmanager
def elasticsearch(server: str, folder: Path) -> Iterator[Place]:
    """Indices with a prefix."""
    target = SearchTarget(server)
    own = f'kind = "elasticsearch", prefix = "{target.prefix}", cursors = ".{target.prefix}cursors"'

    def rows(table: str) -> Rows:
        return target.rows("pipeline_quality" if table == "quality" else table)

    try:
        yield Place(rows, {"ELASTICSEARCH_URL": server}, {'kind = "elasticsearch"': own})
    finally:
        target.close()


@contextmanager
def postgresql(server: str, folder: Path) -> Iterator[Place]:
    """A database that the project's own scripts prepare."""
    name = f"operations_{uuid.uuid4().hex[:10]}"
    dsn = server.removesuffix("postgres") + name

    def prepare(folder: Path) -> None:
        with psycopg.connect(dsn, autocommit=True) as connection:
            for script in ("init.sql", "views.sql"):
                connection.execute((folder / "sql" / script).read_text().encode())

    def rows(table: str) -> Rows:
        with psycopg.connect(dsn, row_factory=dict_row) as connection:
            found = connection.execute(f"SELECT * FROM headrace.{table}").fetchall()
        return [{k: v for k, v in row.items() if k not in ("updated_at", "epoch")} for row in found]

    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    try:
        yield Place(rows, {"PG_DSN": dsn}, prepare=prepare)
    finally:
        with psycopg.connect(server, autocommit=True) as connection:
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


@contextmanager
def cassandra(server: str, folder: Path) -> Iterator[Place]:
    """A keyspace."""
    name = f"signups_{uuid.uuid4().hex[:10]}"
    with connected(server) as session:

        def rows(table: str) -> Rows:
            found = list(session.execute(f"SELECT * FROM {name}.{table}"))
            return [{column: _with_zone(value) for column, value in row.items()} for row in found]

        yield Place(rows, {"CASSANDRA_HOSTS": server}, {"spark_streams": name})
        session.execute(f"DROP KEYSPACE IF EXISTS {name}")


def _with_zone(value: Any) -> Any:
    """The driver gives instants without their zone, which is UTC."""
    return value.replace(tzinfo=UTC) if isinstance(value, datetime) and value.tzinfo is None else value


STORES = {each.__name__: each for each in (parquet, delta, elasticsearch, postgresql, cassandra)}
"""By name: what makes a place, from the server's address and the project's folder."""
