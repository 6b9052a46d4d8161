"""Replicas whose process is killed: what a call has said to be done is done, and the next run goes on."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from targets import ParquetTarget, PostgresTarget

from headrace.testing.replica_kills import KilledReplicaConformance

pytestmark = [pytest.mark.slow, pytest.mark.untraced]


class TestKilledParquet(KilledReplicaConformance):
    @pytest.fixture
    def target(self, tmp_path: Path) -> ParquetTarget:
        return ParquetTarget(tmp_path / "target")


class TestKilledPostgres(KilledReplicaConformance):
    @pytest.fixture
    def target(self, postgres_server: str) -> Iterator[PostgresTarget]:
        name = f"test_{uuid.uuid4().hex[:12]}"
        with psycopg.connect(postgres_server, autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}".encode())
            yield PostgresTarget(postgres_server.removesuffix("postgres") + name)
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())
