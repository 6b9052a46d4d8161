"""The data sources of Grafana that read what replicas keep, as its provisioning files name them.

No secret is in them: Grafana puts its own environment variables in the place of `$NAME`.
"""

from __future__ import annotations

import shlex
from hashlib import sha256
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

if TYPE_CHECKING:
    from headrace.replicate.cassandra import CassandraReplica
    from headrace.replicate.elasticsearch import ElasticsearchReplica
    from headrace.replicate.postgresql import PostgresReplica

__all__ = [
    "TYPES",
    "cassandra_source",
    "page_source",
    "postgresql_source",
    "reference_to",
    "search_source",
    "uid_of",
]

TYPES = {
    "postgresql": "grafana-postgresql-datasource",
    "elasticsearch": "elasticsearch",
    "opensearch": "grafana-opensearch-datasource",
    "cassandra": "hadesarchitect-cassandra-datasource",
    "page": "yesoreyeram-infinity-datasource",
}
"""Grafana's name of what reads a kind of replica, or the page; the last three are plugins to be installed."""

Source = dict[str, Any]

_UID_CHARACTERS = 40


def uid_of(text: str) -> str:
    """Return a uid of a length that Grafana takes; what was cut off a longer text still tells it apart."""
    if len(text) <= _UID_CHARACTERS:
        return text
    rest = "-" + sha256(text.encode()).hexdigest()[:8]
    return text[: _UID_CHARACTERS - len(rest)] + rest


def reference_to(source: Source) -> dict[str, str]:
    """Return how a panel names its data source."""
    return {"type": source["type"], "uid": source["uid"]}


def _source(name: str, uid: str, kind: str, url: str, **more: Any) -> Source:
    return {"name": name, "uid": uid, "type": TYPES[kind], "access": "proxy", "url": url, **more}


def postgresql_source(name: str, uid: str, replica: PostgresReplica) -> Source:
    """Return the source of a PostgreSQL replica; Grafana has its password in POSTGRES_PASSWORD."""
    at = _postgresql_address("" if replica.dsn is None else replica.dsn.reveal())
    return _source(
        name,
        uid,
        "postgresql",
        f"{at['host']}:{at['port']}",
        user=at["user"],
        jsonData={"database": at["dbname"], "sslmode": at["sslmode"], "postgresVersion": 1500},
        secureJsonData={"password": "$POSTGRES_PASSWORD"},
    )


def _postgresql_address(dsn: str) -> dict[str, str]:
    """Return the parts of a connection string in either of libpq's forms, but for the password."""
    found = {"host": "localhost", "port": "5432", "user": "postgres", "dbname": "", "sslmode": "prefer"}
    if "://" in dsn:
        parts = urlsplit(dsn)
        query = dict(pair.split("=", 1) for pair in parts.query.split("&") if "=" in pair)
        given = {
            "host": parts.hostname or "",
            "port": str(parts.port or ""),
            "user": unquote(parts.username or ""),
            "dbname": unquote(parts.path.lstrip("/")),
            "sslmode": query.get("sslmode", ""),
        }
    else:
        given = dict(word.split("=", 1) for word in shlex.split(dsn) if "=" in word)
    found |= {key: given[key] for key in found if given.get(key)}
    # Grafana knows no "prefer": it wants to be told whether the connection is encrypted.
    found["sslmode"] = {"prefer": "disable", "allow": "disable"}.get(found["sslmode"], found["sslmode"])
    found["dbname"] = found["dbname"] or found["user"]
    return found


def search_source(
    name: str, uid: str, replica: ElasticsearchReplica, kind: str, index: str, time: str
) -> Source:
    """Return the source of one index; `time` is the field that a dashboard's time range is of.

    Grafana has the password in ELASTICSEARCH_PASSWORD, or the key in ELASTICSEARCH_API_KEY.
    """
    if kind == "opensearch":
        facts: Source = {"database": index, "timeField": time, "flavor": "opensearch", "version": "2.0.0"}
    else:
        facts = {"index": index, "timeField": time}
    more: Source = {"jsonData": facts}
    if replica.user:
        more |= {"basicAuth": True, "basicAuthUser": replica.user}
        more["secureJsonData"] = {"basicAuthPassword": "$ELASTICSEARCH_PASSWORD"}
    elif replica.api_key is not None:
        facts["httpHeaderName1"] = "Authorization"
        more["secureJsonData"] = {"httpHeaderValue1": "ApiKey $ELASTICSEARCH_API_KEY"}
    return _source(name, uid, kind, replica.url.split(",")[0].strip(), **more)


def cassandra_source(name: str, uid: str, replica: CassandraReplica) -> Source:
    """Return the source of a Cassandra replica; Grafana has its password in CASSANDRA_PASSWORD."""
    host = replica.hosts.split(",")[0].strip()
    more: Source = {"jsonData": {"keyspace": replica.keyspace, "consistency": "ONE"}}
    if replica.user:
        more["jsonData"]["user"] = replica.user
        more["secureJsonData"] = {"password": "$CASSANDRA_PASSWORD"}
    return _source(name, uid, "cassandra", host if ":" in host else f"{host}:9042", **more)


def page_source(pipeline: str, address: str, *, token: bool) -> Source:
    """Return the source of a run's page.

    Grafana has the page's token for panels, where it wants one, in HEADRACE_PANELS_TOKEN: whoever may query
    its data sources may do what the token may.
    """
    uid = uid_of("page-" + "".join(sign if sign.isalnum() else "-" for sign in pipeline.lower()))
    more: Source = {"jsonData": {"allowedHosts": [address]}}
    if token:
        more["jsonData"]["auth_method"] = "bearerToken"
        more["secureJsonData"] = {"bearerToken": "$HEADRACE_PANELS_TOKEN"}
    return _source(f"Page of {pipeline}", uid, "page", address, **more)
