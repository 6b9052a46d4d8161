"""A keyspace of Cassandra that the tests of its replica run against."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import pytest
from cassandra import InvalidRequest

from headrace.replicate.cassandra import CassandraReplica
from servers.cassandra import CassandraNode, connected

__all__ = ["CassandraTarget"]


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
