"""Replicas whose target is full: on real disks, which are small and the test's own."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from cassandra import InvalidRequest
from cassandra.cluster import Session
from cassandra_target import CassandraTarget, signed_in, superuser
from json_targets import KafkaTarget
from search_target import SearchTarget
from small_disks import FOLDERS, OnDisk, folder_on
from targets import PostgresTarget

from headrace.operate.secrets import Secret
from headrace.testing.replica_obstacles import FullTargetConformance
from headrace.testing.replica_runs import wait_for
from servers.cassandra import CassandraNode, cassandra_node
from servers.disks import small_disk
from servers.elasticsearch import search_server
from servers.kafka import kafka_broker as own_broker

USER = "headrace"
PRODUCTS = ("elasticsearch", "opensearch")


@pytest.fixture
def disk() -> Iterator[Path]:
    """See `small_disk`."""
    with small_disk(4) as folder:
        yield folder


class TestFullFolder(FullTargetConformance):
    advice = "room"

    @pytest.fixture(params=FOLDERS)
    def target(self, request: pytest.FixtureRequest, disk: Path) -> Iterator[OnDisk]:
        with folder_on(disk, request.param) as target:
            yield target


class TestFullPostgres(FullTargetConformance):
    advice = "make room"

    @pytest.fixture
    def target(self, postgres_server: str, disk: Path) -> Iterator[OnDisk]:
        name = f"full_{uuid.uuid4().hex[:10]}"
        place = disk / "space"
        place.mkdir()
        shutil.chown(place, "postgres")
        with psycopg.connect(postgres_server, autocommit=True) as connection:
            connection.execute(f"CREATE TABLESPACE {name} LOCATION '{place}'".encode())
            connection.execute(f"CREATE DATABASE {name}".encode())
            connection.execute(f"ALTER DATABASE {name} SET default_tablespace = '{name}'".encode())
            try:
                yield OnDisk(PostgresTarget(postgres_server.removesuffix("postgres") + name), disk)
            finally:
                connection.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())
                connection.execute(f"DROP TABLESPACE {name}".encode())


@pytest.mark.slow
@pytest.mark.parametrize("product", PRODUCTS)
class TestFullIndex(FullTargetConformance):
    """The server's own answer when its disk is full: the block is set as it sets it."""

    advice = "make room"

    @pytest.fixture
    def target(self, product: str, request: pytest.FixtureRequest) -> Iterator[SearchTarget]:
        target = SearchTarget(request.getfixturevalue(f"{product}_server"))
        yield target
        target.close()


class FloodedTarget(SearchTarget):
    """Indices of a server of the test's own, which finds its disk too full itself."""

    @contextmanager
    def full(self) -> Iterator[None]:
        self._free("1000000gb")
        wait_for(self._blocked, "the server notices that its disk is full")
        try:
            yield
        finally:
            self._free(None)
            wait_for(lambda: not self._blocked(), "the server notices that there is room")

    def _free(self, bytes_min: str | None) -> None:
        watermarks = {
            f"cluster.routing.allocation.disk.watermark.{level}": bytes_min
            for level in ("low", "high", "flood_stage")
        }
        settings = {
            **watermarks,
            "cluster.info.update.interval": "10s",  # it takes no less
            "cluster.routing.allocation.disk.threshold_enabled": True,
        }
        self._done(self.http.put("/_cluster/settings", json={"transient": settings}))

    def _blocked(self) -> bool:
        found = self.http.get(f"/{self.prefix}*/_settings/index.blocks.*").json()
        return any(each["settings"] for each in found.values())


@pytest.mark.soak
@pytest.mark.timeout(900)
@pytest.mark.parametrize("product", PRODUCTS)
class TestFullDiskOfASearchServer(FullTargetConformance):
    advice = "make room"

    @pytest.fixture
    def target(self, product: str, request: pytest.FixtureRequest) -> Iterator[SearchTarget]:
        request.getfixturevalue(f"{product}_here")
        with search_server(product) as server:
            target = FloodedTarget(server.url, server)
            yield target
            target.close()


@pytest.mark.soak
class TestFullKafka(FullTargetConformance):
    @pytest.fixture
    def target(self, kafka_here: None) -> Iterator[OnDisk]:
        with small_disk(48) as disk, own_broker({"log.dirs": str(disk / "log")}) as broker:

            def again() -> None:
                # Without a disk that it can write to it has ended itself, or can do nothing any more.
                broker.kill()
                broker.start()

            yield OnDisk(KafkaTarget(broker.bootstrap), disk, freed=again)


class FullNode:
    """A keyspace of a node of which a test fills the disk; `session` is of somebody whom it may refuse."""

    def __init__(self, target: CassandraTarget, node: CassandraNode, session: Session) -> None:
        self._target = target
        self._ballast = node.folder / "data" / "ballast"
        self._session = session
        session.execute(
            "CREATE KEYSPACE probe WITH replication = {'class': 'SimpleStrategy', 'replication_factor': 1}"
        )
        session.execute("CREATE TABLE probe.probe (n int PRIMARY KEY)")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._target, name)

    def replica(self, **options: Any) -> Any:
        who = {"user": USER, "password": Secret(USER), "request_timeout": timedelta(seconds=30)}
        return self._target.replica(**{**who, **options})

    @contextmanager
    def full(self) -> Iterator[None]:
        self._ballast.write_bytes(bytes(80_000_000))
        wait_for(lambda: not self._takes(), "the node notices that its disk is full")
        try:
            yield
        finally:
            self._ballast.unlink()
            wait_for(self._takes, "the node notices that there is room")

    def _takes(self) -> bool:
        try:
            self._session.execute("INSERT INTO probe.probe (n) VALUES (1)")
        except InvalidRequest:
            return False
        return True


@pytest.mark.soak
@pytest.mark.timeout(900)
class TestFullCassandra(FullTargetConformance):
    advice = "make room"
    null_keys = False

    @pytest.fixture
    def target(self, cassandra_here: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[FullNode]:
        monkeypatch.setenv("JAVA_TOOL_OPTIONS", "-Dcassandra.disk_usage.monitor_interval_ms=500")
        settings = {
            "authenticator": "PasswordAuthenticator",
            "authorizer": "CassandraAuthorizer",
            "data_disk_usage_max_disk_size": "100MiB",
            "data_disk_usage_percentage_warn_threshold": "50",
            "data_disk_usage_percentage_fail_threshold": "60",
        }
        with cassandra_node(settings) as node:
            address = f"{node.host}:{node.port}"
            with signed_in(address, *superuser(node)) as session:
                # A superuser may write to a node that is full.
                session.execute(f"CREATE ROLE {USER} WITH PASSWORD = '{USER}' AND LOGIN = true")
                session.execute(f"GRANT ALL ON ALL KEYSPACES TO {USER}")
            with signed_in(address, USER, USER) as session:
                yield FullNode(CassandraTarget(address, "disk", session), node, session)
