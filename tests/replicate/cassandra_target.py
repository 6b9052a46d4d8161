"""A keyspace of Cassandra that the tests of its replica run against."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pytest
from cassandra import InvalidRequest
from cassandra.auth import PlainTextAuthProvider
from cassandra.cluster import EXEC_PROFILE_DEFAULT, Cluster, ExecutionProfile, Session
from cassandra.policies import RoundRobinPolicy
from cassandra.query import dict_factory

from headrace.errors import HeadraceError
from headrace.replicate.cassandra import CassandraReplica
from headrace.replicate.protocol import Chunk, NamedColumn, Position, TableShape
from headrace.testing.replica_writes import FIRST, THINGS, opened
from servers.cassandra import CassandraNode, connected

__all__ = ["LINES", "CassandraTarget", "lines", "refused", "signed_in", "superuser"]

LINES = TableShape(
    name="lines",
    columns=(NamedColumn("who", "VARCHAR"), NamedColumn("n", "BIGINT"), NamedColumn("note", "VARCHAR")),
    key=("who", "n"),
)


@contextmanager
def signed_in(address: str, user: str, password: str) -> Iterator[Session]:
    """A session of a user; rows are dictionaries."""
    host, _, port = address.rpartition(":")
    cluster = Cluster(
        [(host, int(port))],
        auth_provider=PlainTextAuthProvider(user, password),
        execution_profiles={
            EXEC_PROFILE_DEFAULT: ExecutionProfile(
                RoundRobinPolicy(), row_factory=dict_factory, request_timeout=60
            )
        },
        connect_timeout=20,
    )
    try:
        yield cluster.connect()
    finally:
        cluster.shutdown()


def superuser(node: CassandraNode) -> tuple[str, str]:
    """Name and password of who may do everything on a node that asks for them."""
    assert node.user is not None
    return node.user


class CassandraTarget:
    """A keyspace of the test's own; `node` is one that the test may stop."""

    def __init__(
        self, address: str, keyspace: str, session: Any = None, node: CassandraNode | None = None
    ) -> None:
        self.address = address
        self.keyspace = keyspace
        self.session = session
        self.node = node

    def replica(self, **options: Any) -> CassandraReplica:
        given = {"kind": "cassandra", "hosts": self.address, "keyspace": self.keyspace, **options}
        return CassandraReplica(**given)

    def rows(self, table: str) -> list[dict[str, Any]]:
        try:
            found = self.execute(f"SELECT * FROM {self.name(table)}")
        except InvalidRequest as error:
            assert "does not exist" in str(error)
            return []
        return [{name: _read(name, value) for name, value in row.items()} for row in found]

    def execute(self, cql: str) -> list[dict[str, Any]]:
        """Run a statement; on a node that comes and goes, over a connection of its own."""
        if self.node is None:
            return list(self.session.execute(cql))
        with connected(self.address) as session:
            return list(session.execute(cql))

    def name(self, table: str) -> str:
        return f'{self.keyspace}."{re.sub("[^A-Za-z0-9_]", "_", table)}"'

    def refuse(self, table: str) -> bool:
        return False  # Cassandra 5.0 has no constraints

    def differ(self, table: str) -> None:
        name = self.name(table)
        self.execute(f"DROP TABLE {name}")
        self.execute(
            f'CREATE TABLE {name} ("who" text, "seen" timestamp, "n" text, PRIMARY KEY (("who", "seen")))'
        )

    @contextmanager
    def outage(self) -> Iterator[None]:
        if self.node is None:
            pytest.skip("the server is shared")
        self.node.kill()
        try:
            yield
        finally:
            self.node.start()


def _read(column: str, value: Any) -> Any:
    """Instants come without a zone, and lists and structs as JSON text."""
    if isinstance(value, datetime):
        return value.replace(tzinfo=UTC)
    return json.loads(value) if column in ("tags", "place") and value is not None else value


def refused(target: CassandraTarget, shape: TableShape = THINGS, **options: Any) -> HeadraceError:
    with pytest.raises(HeadraceError) as raised, opened(target, shape, **options):
        pass
    return raised.value


def lines(rows: list[dict[str, Any]], *, epoch: int = 1, **more: Any) -> Chunk:
    schema = pa.schema(
        [("who", pa.string()), ("n", pa.int64()), ("note", pa.string()), ("_version", pa.int64())]
    )
    version = FIRST.generation * 2**40 + epoch
    made = pa.Table.from_pylist([{**row, "_version": version} for row in rows], schema)
    removed = made.select(["who", "n", "_version"]).slice(0, 0)
    cursor = replace(FIRST, position=Position.at(epoch))
    return Chunk(table=LINES, rows=made, removed=removed, cursor=cursor, **more)
