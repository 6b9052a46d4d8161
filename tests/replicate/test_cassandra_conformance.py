"""The Cassandra replica passes what every replica has to pass, on a real server."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import pytest
from cassandra_target import CassandraTarget

from headrace.testing.replicas import ReplicaConformance
from servers.cassandra import cassandra_node, connected


class TestCassandra(ReplicaConformance):
    null_keys = False

    @pytest.fixture
    def target(self, cassandra_server: str, request: pytest.FixtureRequest) -> Iterator[CassandraTarget]:
        if "target_that_is_down" in request.node.name:
            with cassandra_node() as node:
                yield CassandraTarget(f"{node.host}:{node.port}", "own", node=node)
            return
        keyspace = f"test_{uuid.uuid4().hex[:12]}"
        with connected(cassandra_server) as session:
            yield CassandraTarget(cassandra_server, keyspace, session)
