"""Streams on brokers for tests: opening logs, counting them in a pipeline, and being another client."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pyarrow as pa
from confluent_kafka import Producer, TopicPartition
from confluent_kafka.admin import (
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewTopic,
    ResourceType,
)

import headrace as hr
from headrace.engine.local import EngineSettings, LocalEngine
from headrace.log.backoff import Waiting
from headrace.log.kafka import KafkaLog, KafkaSettings, open_kafka_log
from headrace.log.protocol import Slice
from headrace.sql import plan_pipeline
from headrace.store import Ledger, Store
from servers.guard import wait_until

NO_WAIT = timedelta(0)
SOON = timedelta(seconds=1)
ONES = b'{"n": 1}'


def topic_name(name: str = "events") -> str:
    return f"{name}-{uuid.uuid4().hex[:10]}"


def values(*given: bytes, **columns: Any) -> pa.Table:
    return pa.table({"value": pa.array(given, pa.binary()), **columns})


def ones(count: int, **columns: Any) -> pa.Table:
    return values(*[ONES] * count, **columns)


def take(log: KafkaLog, positions: dict[int, int] | None = None, wait: timedelta = SOON) -> Slice:
    return log.read(positions or {}, rows_max=1000, bytes_max=1 << 20, wait=wait)


def read_values(log: KafkaLog, count: int) -> list[bytes]:
    """Read until so many records have come; raises when they do not."""
    found: list[bytes] = []
    positions: dict[int, int] = {}

    def more() -> bool:
        given = take(log, positions)
        positions.update(given.next)
        found.extend(given.records.column("value").to_pylist())
        return len(found) >= count

    wait_until(more, what=f"{count} records are read")
    return found


@contextmanager
def opened(brokers: str, topic: str, *, stream: str = "events", **options: Any) -> Iterator[KafkaLog]:
    look_every = options.pop("look_every", timedelta(seconds=10))
    log = open_kafka_log(
        KafkaSettings(brokers=brokers, topic=topic, **options), stream, look_every=look_every
    )
    try:
        yield log
    finally:
        log.close()


def admin(brokers: str) -> AdminClient:
    """Hold it until its futures are done: they end with it."""
    return AdminClient({"bootstrap.servers": brokers, "log_level": 0})


def make_topic(brokers: str, topic: str, partitions: int = 1, **config: str) -> None:
    """Make a topic as somebody else does: `retention_ms="1"` is retention.ms."""
    named = {name.replace("_", "."): value for name, value in config.items()}
    client = admin(brokers)
    client.create_topics([NewTopic(topic, partitions, 1, config=named)])[topic].result(20)


def alter_topic(brokers: str, topic: str, **config: str) -> None:
    """Change settings of a topic, and wait until the broker says so."""
    named = {name.replace("_", "."): value for name, value in config.items()}
    entries = [
        ConfigEntry(name, value, incremental_operation=AlterConfigOpType.SET) for name, value in named.items()
    ]
    client, resource = admin(brokers), ConfigResource(ResourceType.TOPIC, topic, incremental_configs=entries)
    client.incremental_alter_configs([resource])[resource].result(20)
    wait_until(lambda: named.items() <= config_of(brokers, topic).items(), what="the topic is changed")


def config_of(brokers: str, topic: str) -> dict[str, str]:
    client, resource = admin(brokers), ConfigResource(ResourceType.TOPIC, topic)
    answer = client.describe_configs([resource])[resource].result(20)
    return {name: entry.value for name, entry in answer.items()}


def cut_to(brokers: str, topic: str, offset: int) -> None:
    """Delete what lies before an offset of partition 0, as retention does."""
    client = admin(brokers)
    for answer in client.delete_records([TopicPartition(topic, 0, offset)]).values():
        answer.result(20)


def delete_topic(brokers: str, topic: str) -> None:
    client = admin(brokers)
    client.delete_topics([topic])[topic].result(20)
    wait_until(lambda: topic not in client.list_topics(timeout=10).topics, what="the topic is gone")


class Writer:
    """Another program that writes in transactions."""

    def __init__(self, brokers: str, topic: str) -> None:
        self._topic = topic
        mine = {"transactional.id": topic_name("writer"), "log_level": 0}
        self._producer = Producer({"bootstrap.servers": brokers, **mine})
        self._producer.init_transactions(60)

    def write(self, *given: bytes, partition: int = 0) -> None:
        self._producer.begin_transaction()
        for value in given:
            self._producer.produce(self._topic, value, partition=partition)
        assert self._producer.flush(30) == 0

    def commit(self) -> None:
        self._producer.commit_transaction(30)

    def abort(self) -> None:
        self._producer.abort_transaction(30)


class Counted:
    """A pipeline that counts and adds up what a log gives, run by an engine in a thread."""

    def __init__(self, log: KafkaLog, folder: Path, **settings: Any) -> None:
        pipeline = hr.Pipeline("counted")
        pipeline.stream("events", schema="n BIGINT NOT NULL")
        pipeline.table("total", "SELECT count(*) AS records, sum(n) AS n FROM events")
        plan = plan_pipeline(pipeline)
        with ExitStack() as undo:
            self.store = Store.open(folder / "store.duckdb", plan, identities={"events": log.identity})
            undo.callback(self.store.close)
            self._engine = LocalEngine(plan, {"events": log}, self.store, settings=EngineSettings(**settings))
            undo.callback(self._engine.close)
            self._undo = undo.pop_all()
        self.waits: list[Waiting | None] = []
        self.records = 0
        self.failure: BaseException | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        try:
            self._engine.run(self._stop, on_epoch=self._count, on_waiting=self.waits.append)
        except BaseException as error:  # noqa: BLE001 - looked at by the test
            self.failure = error

    def _count(self, report: Any) -> None:
        self.records += sum(report.records.values())

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        self._undo.close()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join(60)
        assert not self._thread.is_alive()

    def wait_for(self, records: int) -> None:
        wait_until(
            lambda: self.records >= records or self.failure is not None, what=f"{records} records are counted"
        )
        if self.failure is not None:
            raise self.failure

    def wait_for_failure(self) -> BaseException:
        wait_until(lambda: self.failure is not None, what="the run fails")
        assert self.failure is not None
        return self.failure

    def total(self) -> Sequence[Any]:
        """The table's row; after `stop`."""
        row = self.store.connection.execute("SELECT records, n FROM total").fetchone()
        return row or ()

    def ledger(self) -> Ledger:
        return self.store.ledger()
