"""The PostgreSQL replica passes what every replica has to pass, on a real server."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import psycopg
import pytest
from targets import PostgresTarget

from headrace.testing.replicas import ReplicaConformance
from servers.postgresql import postgres_server as own_server


class TestPostgres(ReplicaConformance):
    @pytest.fixture
    def target(self, postgres_server: str, request: pytest.FixtureRequest) -> Iterator[PostgresTarget]:
        if "target_that_is_down" in request.node.name:
            with own_server() as server:
                yield PostgresTarget(server.dsn(), server)
            return
        name = f"test_{uuid.uuid4().hex[:12]}"
        with psycopg.connect(postgres_server, autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}")
        yield PostgresTarget(postgres_server.removesuffix("postgres") + name)
        with psycopg.connect(postgres_server, autocommit=True) as connection:
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)")
