"""Replicas whose process is killed: what a call has said to be done is done, and the next run goes on."""

from __future__ import annotations

import random
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psycopg
import pytest
from cassandra_target import CassandraTarget
from json_targets import KafkaTarget, WebhookTarget
from search_target import SearchTarget
from targets import CsvTarget, DeltaTarget, FilesTarget, ParquetTarget, PostgresTarget

from headrace.replicate.files import FilesReplica
from headrace.replicate.protocol import Chunk, ReplicaWriter, Task
from headrace.testing.replica_kills import KilledReplicaConformance
from servers.cassandra import connected

pytestmark = [pytest.mark.slow, pytest.mark.untraced]


class TestKilledParquet(KilledReplicaConformance):
    @pytest.fixture
    def target(self, tmp_path: Path) -> ParquetTarget:
        return ParquetTarget(tmp_path / "target")


class TestKilledDelta(KilledReplicaConformance):
    @pytest.fixture
    def target(self, tmp_path: Path) -> DeltaTarget:
        return DeltaTarget(str(tmp_path / "target"))


class TestKilledFiles(KilledReplicaConformance):
    @pytest.fixture
    def target(self, tmp_path: Path) -> FilesTarget:
        return FilesTarget(tmp_path / "target")


class TestKilledCsv(KilledReplicaConformance):
    @pytest.fixture
    def target(self, tmp_path: Path) -> CsvTarget:
        return CsvTarget(tmp_path / "target")


class TestKilledWebhook(KilledReplicaConformance):
    @pytest.fixture
    def target(self, tmp_path: Path) -> Iterator[WebhookTarget]:
        target = WebhookTarget(tmp_path / "target")
        yield target
        target.stop()


class TestKilledPostgres(KilledReplicaConformance):
    @pytest.fixture
    def target(self, postgres_server: str) -> Iterator[PostgresTarget]:
        name = f"test_{uuid.uuid4().hex[:12]}"
        with psycopg.connect(postgres_server, autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}".encode())
            yield PostgresTarget(postgres_server.removesuffix("postgres") + name)
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())


class TestKilledElasticsearch(KilledReplicaConformance):
    @pytest.fixture
    def target(self, elasticsearch_server: str) -> Iterator[SearchTarget]:
        target = SearchTarget(elasticsearch_server)
        yield target
        target.close()


class TestKilledCassandra(KilledReplicaConformance):
    null_keys = False

    @pytest.fixture
    def target(self, cassandra_server: str) -> Iterator[CassandraTarget]:
        with connected(cassandra_server) as session:
            yield CassandraTarget(cassandra_server, f"test_{uuid.uuid4().hex[:12]}", session)


@pytest.mark.soak  # more than a minute for three processes
class TestKilledKafka(KilledReplicaConformance):
    @pytest.fixture
    def target(self, kafka_broker: str) -> KafkaTarget:
        return KafkaTarget(kafka_broker)


@dataclass(frozen=True, kw_only=True)
class HastyReplica(FilesReplica):
    """Says that it has swept, and sweeps then."""

    def open(self, task: Task) -> ReplicaWriter:
        """See `Replica`."""
        writer: Any = super().open(task)
        write = writer.write

        def in_two_steps(chunk: Chunk) -> None:
            write(replace(chunk, sweep_below=0))
            if chunk.sweep_below:
                said = replace(chunk.cursor, rounds=chunk.cursor.rounds + 1)
                writer.take(chunk.table.name, chunk.cursor, said)
                write(chunk)

        writer.write = in_two_steps
        return writer  # type: ignore[no-any-return]


class HastyTarget(FilesTarget):
    def replica(self, **options: Any) -> HastyReplica:
        return HastyReplica(**{"path": str(self.folder), "kind": "files", **options})


def test_a_replica_that_says_that_it_has_swept_before_it_sweeps_is_found(tmp_path: Path) -> None:
    target = HastyTarget(tmp_path / "target")
    with pytest.raises(AssertionError, match="differs") as raised:
        KilledReplicaConformance().kill(target, tmp_path, ["inside sweep"] * 20, random.Random(1))
    assert "test_killed_replicas.py" in "".join(raised.value.__notes__), "where it was killed"
