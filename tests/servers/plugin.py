"""Fixtures for real servers: what they need is fetched by `make servers`.

A test that uses one is marked `server`. A server that is missing skips the test and says why; where `CI` is
set it fails it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, NoReturn

import pytest

from servers.absent import absent
from servers.airflow import airflow_python
from servers.alertmanager import alertmanager_program
from servers.apicurio import JAVA_MIN, apicurio
from servers.elasticsearch import search_here
from servers.exporters import exporter_program
from servers.jars import ServerMissing, jars_of, java
from servers.postgresql import postgres_program
from servers.prometheus import prometheus_program
from servers.shared import shared_server

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

__all__ = [
    "airflow_here",
    "alertmanager_here",
    "apicurio_registry",
    "cassandra_here",
    "cassandra_server",
    "elasticsearch_here",
    "elasticsearch_server",
    "exporters_here",
    "kafka_broker",
    "kafka_here",
    "opensearch_here",
    "opensearch_server",
    "postgres_here",
    "postgres_server",
    "prometheus_here",
    "server_missing",
    "spark_session",
]

_SERVER_FIXTURES = {
    "airflow_here",
    "alertmanager_here",
    "apicurio_registry",
    "cassandra_here",
    "cassandra_server",
    "elasticsearch_here",
    "elasticsearch_server",
    "exporters_here",
    "kafka_broker",
    "kafka_here",
    "opensearch_here",
    "opensearch_server",
    "postgres_here",
    "postgres_server",
    "prometheus_here",
}


_JVM = "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC -XX:-UsePerfData"
"""A JVM of a test lives for seconds: to compile its hot code well costs more than it gives."""


def pytest_configure() -> None:
    os.environ.setdefault("JDK_JAVA_OPTIONS", _JVM)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if _SERVER_FIXTURES.intersection(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.server)
    # Of several test processes the first one begins with these, and is the only one to start a session.
    items.sort(key=lambda item: "spark_session" not in getattr(item, "fixturenames", ()))


def server_missing(missing: ServerMissing) -> NoReturn:
    """Skip the test that needs a missing server, or fail it in continuous integration."""
    absent(str(missing))


@pytest.fixture(scope="session")
def kafka_here() -> None:
    """What brokers need is here: for tests that start their own with `servers.kafka`."""
    try:
        jars_of("kafka")
        java(17)
    except ServerMissing as missing:
        server_missing(missing)


@pytest.fixture(scope="session")
def kafka_broker(kafka_here: None) -> Iterator[str]:
    """The bootstrap address of a running Kafka broker that all test processes share: use random topic names.

    A test that stops or breaks its broker, or needs other settings, starts one of its own with
    `servers.kafka.kafka_broker` and asks for `kafka_here`.
    """
    with shared_server("servers.kafka:shared_address") as address:
        yield address


@pytest.fixture
def apicurio_registry() -> Iterator[str]:
    """The address of the Confluent-compatible API of an Apicurio registry of the test's own, empty."""
    try:
        jars_of("apicurio")
        java(JAVA_MIN)
    except ServerMissing as missing:
        server_missing(missing)
    with apicurio() as url:
        yield url


@pytest.fixture(scope="session")
def postgres_here() -> None:
    """PostgreSQL is installed: for tests that start their own with `servers.postgresql`."""
    try:
        postgres_program()
    except ServerMissing as missing:
        server_missing(missing)


@pytest.fixture(scope="session")
def postgres_server(postgres_here: None) -> Iterator[str]:
    """The dsn of a running PostgreSQL that all test processes share: use databases with random names."""
    with shared_server("servers.postgresql:shared_address") as dsn:
        yield dsn


def _search_here(product: str) -> None:
    try:
        search_here(product)
    except ServerMissing as missing:
        server_missing(missing)


@pytest.fixture(scope="session")
def elasticsearch_here() -> None:
    """What Elasticsearch needs is here: for tests that start their own with `servers.elasticsearch`."""
    _search_here("elasticsearch")


@pytest.fixture(scope="session")
def elasticsearch_server(elasticsearch_here: None) -> Iterator[str]:
    """The address of a running Elasticsearch that all test processes share: use random index names."""
    with shared_server("servers.elasticsearch:shared_elasticsearch") as url:
        yield url


@pytest.fixture(scope="session")
def opensearch_here() -> None:
    """What OpenSearch needs is here: for tests that start their own with `servers.elasticsearch`."""
    _search_here("opensearch")


@pytest.fixture(scope="session")
def opensearch_server(opensearch_here: None) -> Iterator[str]:
    """The address of a running OpenSearch that all test processes share: use random index names."""
    with shared_server("servers.elasticsearch:shared_opensearch") as url:
        yield url


@pytest.fixture(scope="session")
def cassandra_here() -> None:
    """What Cassandra needs is here: for tests that start their own nodes with `servers.cassandra`."""
    try:
        jars_of("cassandra")
        java(17)
    except ServerMissing as missing:
        server_missing(missing)


@pytest.fixture(scope="session")
def cassandra_server(cassandra_here: None) -> Iterator[str]:
    """The `host:port` of a Cassandra node that all test processes share: use keyspaces with random names."""
    with shared_server("servers.cassandra:shared_address") as address:
        yield address


@pytest.fixture(scope="session")
def spark_session() -> Iterator[SparkSession]:
    """A Spark session on two threads, one for all tests of this process."""
    from servers.spark import local_spark

    try:
        java(17)
    except ServerMissing as missing:
        server_missing(missing)
    with local_spark() as session:
        yield session


@pytest.fixture(scope="session")
def prometheus_here() -> None:
    """Prometheus and promtool are installed: for tests that start their own with `servers.prometheus`."""
    try:
        prometheus_program()
        prometheus_program("promtool")
    except ServerMissing as missing:
        server_missing(missing)


@pytest.fixture(scope="session")
def exporters_here() -> None:
    """Exporters of hosts and PostgreSQL are installed: for tests that start them by `servers.exporters`."""
    try:
        exporter_program("node")
        exporter_program("postgres")
    except ServerMissing as missing:
        server_missing(missing)


@pytest.fixture(scope="session")
def alertmanager_here() -> None:
    """Alertmanager and amtool are installed: for tests that start their own with `servers.alertmanager`."""
    try:
        alertmanager_program()
        alertmanager_program("amtool")
    except ServerMissing as missing:
        server_missing(missing)


@pytest.fixture(scope="session")
def airflow_here() -> None:
    """Airflow's environment is here: for tests that run it with `servers.airflow`."""
    try:
        airflow_python()
    except ServerMissing as missing:
        server_missing(missing)
