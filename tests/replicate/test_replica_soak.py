"""Every replica, killed at random points under load, and its server gone for a while, again and again."""

from __future__ import annotations

import pickle
import random
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cassandra_target import CassandraTarget
from json_targets import KafkaTarget, WebhookTarget
from object_store import BucketTarget, Door, delta_in_s3, made_bucket, s3_server
from search_target import SearchTarget
from shop_oracle import computed
from small_disks import OnDisk, folder_on
from soak_child import START
from targets import DeltaTarget, PostgresTarget

from headrace.testing.pipeline_test import PipelineTest
from headrace.testing.replica_runs import catch_up, following, shop, sorted_rows
from headrace.testing.replicas import same
from servers.cassandra import cassandra_node
from servers.disks import small_disk
from servers.elasticsearch import search_server
from servers.kafka import kafka_broker
from servers.postgresql import postgres_server

pytestmark = [pytest.mark.slow, pytest.mark.untraced]

HERE = Path(__file__).parent
DISK_MB = 256


class Child:
    """The process of `soak_child.py`."""

    def __init__(self, folder: Path, described: Path, null_keys: bool) -> None:
        self.errors = folder.with_suffix(".errors")
        words = [str(HERE / "soak_child.py"), str(folder), str(described), "yes" if null_keys else "no"]
        with self.errors.open("ab") as errors:
            self.process = subprocess.Popen(
                [sys.executable, *words], text=True,
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors,
            )  # fmt: skip

    def begin(self) -> None:
        """Let it do a step."""
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def step(self) -> None:
        """Let it do a step, and wait until it has."""
        self.begin()
        assert self.process.stdout is not None
        assert self.process.stdout.readline(), self.errors.read_text()

    def kill(self) -> None:
        self.process.kill()
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe is not None
            pipe.close()
        self.process.wait()


@contextmanager
def of_postgresql(folder: Path, ask: pytest.FixtureRequest) -> Iterator[PostgresTarget]:
    ask.getfixturevalue("postgres_here")
    with postgres_server() as server:
        yield PostgresTarget(server.dsn(), server)


def of_search(product: str) -> Callable[..., Any]:
    @contextmanager
    def made(folder: Path, ask: pytest.FixtureRequest) -> Iterator[SearchTarget]:
        ask.getfixturevalue(f"{product}_here")
        with search_server(product) as server:
            target = SearchTarget(server.url, server)
            yield target
            target.close()

    return made


@contextmanager
def of_cassandra(folder: Path, ask: pytest.FixtureRequest) -> Iterator[CassandraTarget]:
    ask.getfixturevalue("cassandra_here")
    with cassandra_node() as node:
        yield CassandraTarget(f"{node.host}:{node.port}", "soak", node=node)


@contextmanager
def of_kafka(folder: Path, ask: pytest.FixtureRequest) -> Iterator[KafkaTarget]:
    ask.getfixturevalue("kafka_here")
    with kafka_broker() as broker:
        yield KafkaTarget(broker.bootstrap, broker)


@contextmanager
def of_webhook(folder: Path, ask: pytest.FixtureRequest) -> Iterator[WebhookTarget]:
    target = WebhookTarget(folder)
    yield target
    target.stop()


def of_folder(kind: str) -> Callable[..., Any]:
    @contextmanager
    def made(folder: Path, ask: pytest.FixtureRequest) -> Iterator[OnDisk]:
        with small_disk(DISK_MB) as disk, folder_on(disk, kind) as target:
            yield target

    return made


@contextmanager
def of_parquet_in_s3(folder: Path, ask: pytest.FixtureRequest) -> Iterator[BucketTarget]:
    folder.mkdir()
    with s3_server(folder) as endpoint:
        door = Door(endpoint)
        try:
            yield BucketTarget(endpoint, door=door)
        finally:
            door.close()


class DeltaBehindDoor(DeltaTarget):
    """Delta tables in a bucket: the child comes to them by a door, this process does not (see `Door`)."""

    def __init__(self, endpoint: str, door: Door) -> None:
        super().__init__("", **delta_in_s3(endpoint, made_bucket(endpoint)).more)
        self.door = door

    def of_child(self, options: Any) -> Any:
        return replace(options, endpoint=self.door.url)

    @contextmanager
    def outage(self) -> Iterator[None]:
        with self.door.shut():
            yield


@contextmanager
def of_delta_in_s3(folder: Path, ask: pytest.FixtureRequest) -> Iterator[DeltaBehindDoor]:
    folder.mkdir()
    with s3_server(folder) as endpoint:
        door = Door(endpoint)
        try:
            yield DeltaBehindDoor(endpoint, door)
        finally:
            door.close()


TARGETS: dict[str, Callable[..., Any]] = {
    "postgresql": of_postgresql,
    "elasticsearch": of_search("elasticsearch"),
    "opensearch": of_search("opensearch"),
    "cassandra": of_cassandra,
    "kafka": of_kafka,
    "webhook": of_webhook,
    "delta": of_folder("delta"),
    "parquet": of_folder("parquet"),
    "files": of_folder("files"),
    "csv": of_folder("csv"),
    "delta-s3": of_delta_in_s3,
    "parquet-s3": of_parquet_in_s3,
}


def killed_and_cut_off(
    kind: str, folder: Path, ask: pytest.FixtureRequest, *, kills: int, outages: int, seed: int
) -> None:
    chance, project, null_keys = random.Random(seed), folder / "pipeline", kind != "cassandra"
    with TARGETS[kind](folder / "target", ask) as target:
        options = target.replica(chunk_rows_max=30)
        described = folder / "replica.pickle"
        by_the_child = target.of_child(options) if isinstance(target, DeltaBehindDoor) else options
        described.write_bytes(pickle.dumps(by_the_child))
        blows = ["kill"] * kills + ["outage"] * outages
        chance.shuffle(blows)
        child = Child(project, described, null_keys)
        try:
            for blow in blows:
                child.step()
                if blow == "outage":
                    with target.outage():
                        for _ in range(3):
                            child.step()  # the pipeline is not held up
                    continue
                for _ in range(chance.randrange(3)):
                    child.step()
                child.begin()
                threading.Event().wait(chance.random() / 2)
                child.kill()
                child = Child(project, described, null_keys)
            child.step()
        finally:
            child.kill()
        with PipelineTest(shop(null_keys=null_keys), folder=project, start=START) as test:
            test.run()
            with following(test, options) as follower:
                catch_up(follower, seconds=300)
            same(test, target)
            (place,) = test.log("events").partitions()
            (all_of_them,) = test.table("everything")
            assert all_of_them["records"] == place.end > len(blows)
            for name, rows in computed(test.log("events"), null_keys=null_keys).items():
                assert sorted_rows(target.rows(name)) == sorted_rows(rows), f"'{name}' is not what was sent"


def test_three_kills_and_an_outage_leave_no_trace(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    killed_and_cut_off("postgresql", tmp_path, request, kills=3, outages=1, seed=5)


@pytest.mark.soak
@pytest.mark.parametrize("seed", [1])
@pytest.mark.parametrize("kind", TARGETS)
def test_twenty_kills_and_three_outages_leave_no_trace(
    kind: str, seed: int, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    killed_and_cut_off(kind, tmp_path, request, kills=20, outages=3, seed=seed)
