"""Replicas whose target takes no writes: a disk, a server, a role without the right, an endpoint."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
from confluent_kafka.admin import (
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
)
from json_targets import KafkaTarget, WebhookTarget
from search_target import SearchTarget
from small_disks import FOLDERS, OnDisk, folder_on
from targets import PostgresTarget

from headrace.operate.secrets import Secret
from headrace.testing.replica_obstacles import ReadOnlyTargetConformance
from servers.disks import small_disk
from servers.kafka import kafka_broker as own_broker


class TestReadOnlyFolder(ReadOnlyTargetConformance):
    advice = "folder"

    @pytest.fixture(params=FOLDERS)
    def target(self, request: pytest.FixtureRequest) -> Iterator[OnDisk]:
        with small_disk(16) as disk, folder_on(disk, request.param) as target:
            yield target


class TestForbiddingEndpoint(ReadOnlyTargetConformance):
    advice = "the endpoint"

    @pytest.fixture
    def target(self, tmp_path: Path) -> Iterator[WebhookTarget]:
        target = WebhookTarget(tmp_path / "target")
        yield target
        target.stop()


@pytest.fixture
def database(postgres_server: str) -> Iterator[PostgresTarget]:
    """A database of the test's own."""
    name = f"test_{uuid.uuid4().hex[:12]}"
    with psycopg.connect(postgres_server, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}".encode())
        yield PostgresTarget(postgres_server.removesuffix("postgres") + name)
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())


class TestReadOnlyPostgres(ReadOnlyTargetConformance):
    advice = "primary"

    @pytest.fixture
    def target(self, database: PostgresTarget) -> PostgresTarget:
        return database


class RoleTarget:
    """A database in which a role may do everything, until a test takes the right to write from it."""

    def __init__(self, database: PostgresTarget, role: str) -> None:
        self._database = database
        self._role = role
        tail = database.dsn.partition("@")[2]
        self._dsn = Secret(f"postgresql://{role}:word@{tail}")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._database, name)

    def replica(self, **options: Any) -> Any:
        return self._database.replica(**{"dsn": self._dsn, **options})

    @contextmanager
    def read_only(self) -> Iterator[None]:
        rights = "INSERT, UPDATE, DELETE, TRUNCATE ON ALL TABLES IN SCHEMA public"
        with self._database.connect() as connection:
            connection.execute(f"REVOKE {rights} FROM {self._role}".encode())
            try:
                yield
            finally:
                connection.execute(f"GRANT {rights} TO {self._role}".encode())


class TestPostgresRoleWithoutTheRightToWrite(ReadOnlyTargetConformance):
    advice = "grant"

    @pytest.fixture
    def target(self, database: PostgresTarget) -> Iterator[RoleTarget]:
        role = f"writer_{uuid.uuid4().hex[:8]}"
        with database.connect() as connection:
            connection.execute(f"CREATE USER {role} PASSWORD 'word'".encode())
            connection.execute(f"GRANT CREATE, USAGE ON SCHEMA public TO {role}".encode())
            yield RoleTarget(database, role)
            connection.execute(f"DROP OWNED BY {role}".encode())
            connection.execute(f"DROP USER {role}".encode())


@pytest.mark.slow
@pytest.mark.parametrize("product", ["elasticsearch", "opensearch"])
class TestReadOnlyIndex(ReadOnlyTargetConformance):
    advice = "end the block"

    @pytest.fixture
    def target(self, product: str, request: pytest.FixtureRequest) -> Iterator[SearchTarget]:
        target = SearchTarget(request.getfixturevalue(f"{product}_server"))
        yield target
        target.close()


class GuardedTopics(KafkaTarget):
    """Topics of a broker that looks at what everybody may do."""

    @contextmanager
    def read_only(self) -> Iterator[None]:
        admin = AdminClient({"bootstrap.servers": self.brokers})
        topics = ("some__things_", "all_rows", "totals")
        everybody = ("User:ANONYMOUS", "*")
        rules = [
            AclBinding(
                ResourceType.TOPIC, self.prefix + topic, ResourcePatternType.LITERAL, *everybody,
                operation, permission,
            )
            for topic in topics
            for operation, permission in (
                (AclOperation.ALL, AclPermissionType.ALLOW),
                (AclOperation.WRITE, AclPermissionType.DENY),
            )
        ]  # fmt: skip
        for made in admin.create_acls(rules).values():
            made.result(30)
        try:
            yield
        finally:
            every = AclBindingFilter(
                ResourceType.TOPIC, None, ResourcePatternType.LITERAL, None, None,
                AclOperation.ANY, AclPermissionType.ANY,
            )  # fmt: skip
            for taken in admin.delete_acls([every]).values():
                taken.result(30)


@pytest.mark.soak
class TestReadOnlyTopics(ReadOnlyTargetConformance):
    @pytest.fixture
    def target(self, kafka_here: None) -> Iterator[GuardedTopics]:
        guard = "org.apache.kafka.metadata.authorizer.StandardAuthorizer"
        with own_broker({"authorizer.class.name": guard, "allow.everyone.if.no.acl.found": "true"}) as broker:
            yield GuardedTopics(broker.bootstrap)
