"""Targets that hold rows as JSON: topics of Kafka, and an HTTP server that is posted to."""

from __future__ import annotations

import json
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from confluent_kafka import Consumer, TopicPartition
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from headrace.operate.secrets import Secret
from headrace.replicate.kafka import KafkaReplica
from headrace.replicate.kafka.writer import VERSION_HEADER
from headrace.replicate.webhook import WebhookReplica
from headrace.sql import plan_pipeline
from headrace.testing.replica_runs import shop, short
from headrace.testing.replica_writes import THINGS
from servers.guard import free_ports, wait_until

__all__ = ["KafkaTarget", "WebhookTarget"]


@cache
def kinds_of(table: str) -> dict[str, str]:
    """Return the types of a table of the tests: JSON has no decimals and no instants."""
    plans = (plan_pipeline(shop()), plan_pipeline(short()))
    found = [
        column for plan in plans for each in plan.tables if each.name == table for column in each.columns
    ]
    return {column.name: column.type for column in found or THINGS.columns}


def typed_row(table: str, row: dict[str, Any]) -> dict[str, Any]:
    kinds = kinds_of(table)
    return {name: _typed(value, kinds.get(name, "")) for name, value in row.items()}


def _typed(value: Any, kind: str) -> Any:
    if isinstance(value, str) and kind.startswith("TIMESTAMP"):
        return datetime.fromisoformat(value)
    if isinstance(value, str) and kind.startswith(("DECIMAL", "HUGEINT")):
        return Decimal(value)
    return value


class KafkaTarget:
    """Topics of a broker, with a prefix of the test's own; `broker` is one that the test may stop."""

    def __init__(self, brokers: str, broker: Any = None) -> None:
        self.brokers = brokers
        self.broker = broker
        self.prefix = f"test-{uuid.uuid4().hex[:12]}-"

    def replica(self, **options: Any) -> KafkaReplica:
        given = {"kind": "kafka", "brokers": self.brokers, "prefix": self.prefix, "partitions": 2, **options}
        return KafkaReplica(**given)

    def records(self, table: str) -> Iterator[tuple[bytes, bytes | None, int]]:
        """Every committed record of a topic: key, value, version."""
        topic = self.prefix + "".join(c if c.isalnum() or c in "._-" else "_" for c in table)
        reader = Consumer(
            {
                "bootstrap.servers": self.brokers,
                "group.id": "tests",
                "isolation.level": "read_committed",
                "enable.partition.eof": True,
            }
        )
        try:
            partitions = reader.list_topics(topic, timeout=10).topics[topic].partitions
            reader.assign([TopicPartition(topic, number, 0) for number in partitions])
            ended = 0
            while ended < len(partitions):
                message = reader.poll(10)
                assert message is not None
                if message.error() is not None:
                    ended += 1
                    continue
                version = int(dict(message.headers() or ())[VERSION_HEADER])
                yield message.key(), message.value(), version
        finally:
            reader.close()

    def rows(self, table: str) -> list[dict[str, Any]]:
        found: dict[bytes, tuple[int, bytes | None]] = {}
        for key, value, version in self.records(table):
            if key not in found or found[key][0] <= version:
                found[key] = (version, value)
        return [typed_row(table, json.loads(value)) for _, value in found.values() if value is not None]

    def refuse(self, table: str) -> bool:
        return False

    def differ(self, table: str) -> None:
        raise AssertionError(f"{table}: this target has no types")

    @contextmanager
    def outage(self) -> Iterator[None]:
        if self.broker is None:
            pytest.skip("the broker is shared")
        self.broker.stop()
        try:
            yield
        finally:
            self.broker.start()


class WebhookTarget:
    """An HTTP server of the test's own, which keeps rows by key and remembers idempotency keys."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.tables: dict[str, dict[str, dict[str, Any]]] = {}
        self.known: set[str] = set()
        self.posts: list[str] = []
        self.answers: list[int] = []
        self.unlucky: set[str] = set()
        self.authorization: str | None = None
        self.asked_for: str | None = None
        self.forbidden = False
        (self.port,) = free_ports(1)
        self.start()

    def start(self) -> None:
        app = Starlette(routes=[Route("/hook", self.posted, methods=["POST"])])
        config = uvicorn.Config(app, "127.0.0.1", self.port, log_level="critical", lifespan="off")
        self.server = uvicorn.Server(config)
        self.thread = threading.Thread(target=self.server.run)
        self.thread.start()
        wait_until(lambda: self.server.started, what="the endpoint answers", seconds=60)

    def stop(self) -> None:
        self.server.should_exit = True
        self.thread.join()

    async def posted(self, request: Request) -> Response:
        key = request.headers["Idempotency-Key"]
        self.posts.append(key)
        self.authorization = request.headers.get("Authorization")
        if self.answers and (code := self.answers.pop(0)) != 200:
            return Response(status_code=code)
        if self.asked_for is not None and self.authorization != self.asked_for:
            return Response("who are you?", status_code=401)
        if self.forbidden:
            return Response("nothing is taken", status_code=403)
        body = json.loads(await request.body())
        table = body["table"]
        if table in self.unlucky and any(str(row["n"]) == "13" for row in body["rows"]):
            return Response("13 is not taken", status_code=422)
        if key not in self.known:
            self.known.add(key)
            self.apply(self.tables.setdefault(table, {}), body)
        return Response(status_code=204)

    def apply(self, there: dict[str, dict[str, Any]], body: dict[str, Any]) -> None:
        for word in ("removed", "rows"):
            for row in body[word]:
                known = json.dumps([row[name] for name in body["key"]] or uuid.uuid4().hex)
                if known in there and there[known]["_version"] > row["_version"]:
                    continue
                there.pop(known, None)
                if word == "rows":
                    there[known] = row
        if body["sweep_below"]:
            swept = range(body.get("sweep_from", 0), body["sweep_below"])
            for known in [k for k, row in there.items() if row["_version"] in swept]:
                del there[known]

    def replica(self, **options: Any) -> WebhookReplica:
        url = f"http://127.0.0.1:{self.port}/hook"
        given: dict[str, Any] = {"kind": "webhook", "url": url, "path": str(self.folder)}
        if self.asked_for is not None:
            given["authorization"] = Secret(self.asked_for)
        return WebhookReplica(**{**given, **options})

    def rows(self, table: str) -> list[dict[str, Any]]:
        return [typed_row(table, row) for row in self.tables.get(table, {}).values()]

    def refuse(self, table: str) -> bool:
        self.unlucky.add(table)
        return True

    def differ(self, table: str) -> None:
        raise AssertionError(f"{table}: this target has no types")

    @contextmanager
    def read_only(self) -> Iterator[None]:
        self.forbidden = True
        try:
            yield
        finally:
            self.forbidden = False

    def wrong_credentials(self) -> dict[str, Any]:
        return {"authorization": Secret("Bearer of a wrong secret")}

    def secret_words(self) -> tuple[str, ...]:
        return str(self.asked_for), "wrong secret"

    @contextmanager
    def outage(self) -> Iterator[None]:
        self.stop()
        try:
            yield
        finally:
            self.start()
