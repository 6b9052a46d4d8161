"""Replicas with a wrong password, key or token, on targets that ask for one."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from json_targets import WebhookTarget
from search_gate import API_KEY, PASSWORD, USER, gate
from search_target import SearchTarget
from targets import PostgresTarget

from headrace.operate.secrets import Secret
from headrace.testing.replica_obstacles import WrongCredentialsConformance

WRONG = {"password": "a wrong secret", "api_key": "d3Jvbmc6c2VjcmV0"}


class TestPostgresPassword(WrongCredentialsConformance):
    advice = "dsn"

    @pytest.fixture
    def target(self, postgres_server: str) -> Iterator[PostgresTarget]:
        name = f"test_{uuid.uuid4().hex[:12]}"
        with psycopg.connect(postgres_server, autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}".encode())
            yield PostgresTarget(postgres_server.removesuffix("postgres") + name)
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())


class TestWebhookAuthorization(WrongCredentialsConformance):
    advice = "authorization"

    @pytest.fixture
    def target(self, tmp_path: Path) -> Iterator[WebhookTarget]:
        target = WebhookTarget(tmp_path / "target")
        target.asked_for = "Bearer of the right secret"
        yield target
        target.stop()


class GatedTarget:
    """Indices behind a gate that asks who comes: by user and password, or by an API key."""

    def __init__(self, target: SearchTarget, url: str, by: str) -> None:
        self._target = target
        self._url = url
        self._by = by

    def __getattr__(self, name: str) -> Any:
        return getattr(self._target, name)

    def signing(self, secret: str) -> dict[str, Any]:
        return {self._by: Secret(secret), **({"user": USER} if self._by == "password" else {})}

    def replica(self, **options: Any) -> Any:
        right = self.signing(PASSWORD if self._by == "password" else API_KEY)
        return self._target.replica(**{"url": self._url, **right, **options})

    def wrong_credentials(self) -> dict[str, Any]:
        return self.signing(WRONG[self._by])

    def secret_words(self) -> tuple[str, ...]:
        return PASSWORD, API_KEY, *WRONG.values()


class TestElasticsearchBehindGate(WrongCredentialsConformance):
    """The servers of the tests have no security of their own, so it is a gate in front of them that asks."""

    advice = "api_key"

    @pytest.fixture(params=WRONG)
    def target(self, elasticsearch_server: str, request: pytest.FixtureRequest) -> Iterator[GatedTarget]:
        yield from gated(elasticsearch_server, request.param)


class TestOpenSearchBehindGate(WrongCredentialsConformance):
    """As above: the security plugin is not among the jars that OpenSearch is started from."""

    advice = "api_key"

    @pytest.fixture
    def target(self, opensearch_server: str) -> Iterator[GatedTarget]:
        yield from gated(opensearch_server, "password")


def gated(url: str, by: str) -> Iterator[GatedTarget]:
    target = SearchTarget(url)
    with gate(url) as of_the_gate:
        yield GatedTarget(target, of_the_gate, by)
    target.close()
