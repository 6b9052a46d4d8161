"""Targets that are full, or take no writes any more: on real disks, which are small and the test's own."""

from __future__ import annotations

import secrets
import shutil
import subprocess
import tempfile
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from cassandra_target import CassandraTarget
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
from targets import DeltaTarget, FilesTarget, ParquetTarget, PostgresTarget

from headrace.errors import RefusedError, TransientError
from headrace.operate.secrets import Secret
from headrace.replicate.protocol import Chunk
from headrace.testing.replica_runs import wait_for
from headrace.testing.replica_writes import FIRST, THINGS, chunk, opened, thing
from headrace.testing.replicas import FullTargetConformance
from servers.cassandra import cassandra_node
from servers.kafka import kafka_broker as own_broker

ROWS = 20
EPOCHS = 4
USER = "headrace"


def epoch(number: int) -> Chunk:
    """Rows of an epoch, too large for what is left of a page of the disk."""
    rows = [thing(f"{number}-{i}", i, secrets.token_hex(2_000), epoch=number) for i in range(ROWS)]
    return chunk(rows, epoch=number)


def write(target: Any, *numbers: int, **options: Any) -> None:
    with opened(target, **options) as writer:
        if not writer.cursors():
            writer.take(THINGS.name, None, FIRST)
        for number in numbers:
            writer.write(epoch(number))


def assert_whole(target: Any) -> None:
    """Every row is there, once."""
    there = sorted(row["who"] for row in target.rows(THINGS.name))
    assert there == sorted(f"{number}-{i}" for number in range(1, EPOCHS + 1) for i in range(ROWS))


def goes_on(target: Any, **options: Any) -> None:
    """The next run writes what is missing."""
    with opened(target, **options) as writer:
        at = writer.cursors()[THINGS.name].position.epoch
    write(target, *range(at + 1, EPOCHS + 1), **options)
    assert_whole(target)


@pytest.fixture
def disk() -> Iterator[Path]:
    """See `small_disk`."""
    with small_disk(4) as folder:
        yield folder


@contextmanager
def small_disk(megabytes: int) -> Iterator[Path]:
    """A file system of this size, in a folder that others may look into; only root can make one."""
    folder = Path(tempfile.mkdtemp(prefix="headrace-disk-"))
    words = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m,mode=0777", "headrace-tests", str(folder)]
    with ExitStack() as undo:
        undo.callback(shutil.rmtree, folder, ignore_errors=True)
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"no file system can be mounted here: {done.stderr.strip()}")
        undo.callback(subprocess.run, ["umount", "--lazy", str(folder)], check=True)
        folder.chmod(0o777)
        yield folder


@contextmanager
def full(disk: Path) -> Iterator[None]:
    """Fill it, and make room again."""
    ballast = disk / "ballast"
    with ballast.open("wb", buffering=0) as file:
        for size in (65_536, 512):
            with suppress(OSError):
                while True:
                    file.write(bytes(size))
    try:
        yield
    finally:
        ballast.unlink()


@contextmanager
def read_only(disk: Path) -> Iterator[None]:
    """Let nothing be written to it."""
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    try:
        yield
    finally:
        subprocess.run(["mount", "-o", "remount,rw", str(disk)], check=True)


FOLDERS: dict[str, Callable[[Path], Any]] = {
    "files": FilesTarget,
    "parquet": ParquetTarget,
    "delta": lambda folder: DeltaTarget(str(folder)),
    "webhook": WebhookTarget,
}


@contextmanager
def folder_target(kind: str, disk: Path) -> Iterator[Any]:
    target = FOLDERS[kind](disk / "target")
    try:
        yield target
    finally:
        if isinstance(target, WebhookTarget):
            target.stop()


@pytest.fixture(params=FOLDERS)
def target(request: pytest.FixtureRequest, disk: Path) -> Iterator[Any]:
    with folder_target(request.param, disk) as target:
        yield target


class Filled:
    """A target on a disk of its own (see `FillableTarget`)."""

    def __init__(self, target: Any, disk: Path, *, freed: Callable[[], None] | None = None) -> None:
        self._target = target
        self._disk = disk
        self._freed = freed

    def __getattr__(self, name: str) -> Any:
        return getattr(self._target, name)

    @contextmanager
    def full(self) -> Iterator[None]:
        with full(self._disk):
            yield
        if self._freed is not None:
            self._freed()


class TestFullFolder(FullTargetConformance):
    advice = "room"

    @pytest.fixture(params=FOLDERS)
    def target(self, request: pytest.FixtureRequest, disk: Path) -> Iterator[Filled]:
        with folder_target(request.param, disk) as target:
            yield Filled(target, disk)


def test_a_disk_that_takes_no_writes_is_for_an_operator(target: Any, disk: Path) -> None:
    write(target, 1)
    with read_only(disk), pytest.raises(RefusedError) as raised:
        write(target, 2)
    assert "folder" in raised.value.fix
    goes_on(target)


class TestFullPostgres(FullTargetConformance):
    advice = "make room"

    @pytest.fixture
    def target(self, postgres_server: str, disk: Path) -> Iterator[Filled]:
        name = f"full_{uuid.uuid4().hex[:10]}"
        place = disk / "space"
        place.mkdir()
        shutil.chown(place, "postgres")
        with psycopg.connect(postgres_server, autocommit=True) as connection:
            connection.execute(f"CREATE TABLESPACE {name} LOCATION '{place}'".encode())
            connection.execute(f"CREATE DATABASE {name}".encode())
            connection.execute(f"ALTER DATABASE {name} SET default_tablespace = '{name}'".encode())
            try:
                yield Filled(PostgresTarget(postgres_server.removesuffix("postgres") + name), disk)
            finally:
                connection.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())
                connection.execute(f"DROP TABLESPACE {name}".encode())


@pytest.mark.soak
class TestFullKafka(FullTargetConformance):
    @pytest.fixture
    def target(self, kafka_here: None) -> Iterator[Filled]:
        with small_disk(48) as disk, own_broker({"log.dirs": str(disk / "log")}) as broker:

            def again() -> None:
                # Without a disk that it can write to it has ended itself, or can do nothing any more.
                broker.kill()
                broker.start()

            yield Filled(KafkaTarget(broker.bootstrap), disk, freed=again)


@pytest.mark.soak
@pytest.mark.timeout(600)
def test_a_full_disk_of_cassandra_is_waited_for(
    cassandra_here: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JAVA_TOOL_OPTIONS", "-Dcassandra.disk_usage.monitor_interval_ms=500")
    settings = {
        "authenticator": "PasswordAuthenticator",
        "authorizer": "CassandraAuthorizer",
        "data_disk_usage_max_disk_size": "100MiB",
        "data_disk_usage_percentage_warn_threshold": "50",
        "data_disk_usage_percentage_fail_threshold": "60",
    }
    with cassandra_node(settings) as node:
        cluster = node.cluster()
        try:
            session = cluster.connect()
            # A superuser may write to a node that is full.
            session.execute(f"CREATE ROLE {USER} WITH PASSWORD = '{USER}' AND LOGIN = true")
            session.execute(f"GRANT ALL ON ALL KEYSPACES TO {USER}")
        finally:
            cluster.shutdown()
        target = CassandraTarget(f"{node.host}:{node.port}", "disk", node=node)
        who = {"user": USER, "password": Secret(USER), "request_timeout": timedelta(seconds=30)}
        write(target, 1, **who)
        ballast = node.folder / "data" / "ballast"
        ballast.write_bytes(bytes(80_000_000))
        waiting: list[TransientError] = []
        with opened(target, **who) as writer:

            def refused() -> bool:
                try:
                    writer.write(epoch(2))
                    writer.write(epoch(3))
                except TransientError as error:
                    waiting.append(error)
                return bool(waiting)

            wait_for(refused, "the node notices that its disk is full")
        assert "make room" in waiting[0].fix
        ballast.unlink()

        def written() -> bool:
            with suppress(TransientError):
                write(target, 2, 3, 4, **who)
                return True
            return False

        wait_for(written, "the node notices that there is room")
        cluster = node.cluster()
        try:
            rows = list(cluster.connect().execute(f"SELECT who FROM {target.name(THINGS.name)}"))
        finally:
            cluster.shutdown()
        assert len(rows) == EPOCHS * ROWS


@pytest.mark.soak
def test_a_topic_that_takes_no_writes_is_for_an_operator(kafka_here: None) -> None:
    guard = "org.apache.kafka.metadata.authorizer.StandardAuthorizer"
    with own_broker({"authorizer.class.name": guard, "allow.everyone.if.no.acl.found": "true"}) as broker:
        target = KafkaTarget(broker.bootstrap)
        write(target, 1)
        admin = AdminClient({"bootstrap.servers": broker.bootstrap})
        topic = target.prefix + "some__things_"
        who = ("User:ANONYMOUS", "*")
        rules = [
            AclBinding(ResourceType.TOPIC, topic, ResourcePatternType.LITERAL, *who, operation, permission)
            for operation, permission in (
                (AclOperation.ALL, AclPermissionType.ALLOW),
                (AclOperation.WRITE, AclPermissionType.DENY),
            )
        ]
        for made in admin.create_acls(rules).values():
            made.result(30)
        with pytest.raises(RefusedError):
            write(target, 2)
        of_it = AclBindingFilter(
            ResourceType.TOPIC, topic, ResourcePatternType.LITERAL, None, None,
            AclOperation.ANY, AclPermissionType.ANY,
        )  # fmt: skip
        for taken in admin.delete_acls([of_it]).values():
            taken.result(30)
        goes_on(target)
