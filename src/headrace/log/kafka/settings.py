"""Where a stream lies on Kafka: a description, which connects to nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

__all__ = ["CLIENT_SETTINGS", "KafkaSecurity", "KafkaSettings"]

CLIENT_SETTINGS = frozenset(
    {
        "batch.size",
        "broker.address.family",
        "client.dns.lookup",
        "client.id",
        "client.rack",
        "connections.max.idle.ms",
        "delivery.timeout.ms",
        "fetch.max.bytes",
        "fetch.wait.max.ms",
        "linger.ms",
        "max.partition.fetch.bytes",
        "message.max.bytes",
        "metadata.max.age.ms",
        "queued.max.messages.kbytes",
        "queued.min.messages",
        "receive.message.max.bytes",
        "reconnect.backoff.max.ms",
        "reconnect.backoff.ms",
        "request.timeout.ms",
        "socket.connection.setup.timeout.ms",
        "socket.keepalive.enable",
        "socket.receive.buffer.bytes",
        "socket.send.buffer.bytes",
        "socket.timeout.ms",
        "ssl.cipher.suites",
        "ssl.endpoint.identification.algorithm",
    }
)
"""Settings of librdkafka that a profile may give: none that durability, order or positions rest on."""


@dataclass(frozen=True, kw_only=True)
class KafkaSecurity:
    """How a client shows who it is and knows the broker. Paths are PEM files.

    mechanism   PLAIN, SCRAM-SHA-256, SCRAM-SHA-512 or OAUTHBEARER; none: no user
    token_url   OAUTHBEARER: where a token is asked for, with client_id and client_secret (OIDC)
    """

    tls: bool = False
    ca: str | None = None
    certificate: str | None = None
    key: str | None = None
    key_password: str | None = field(default=None, repr=False)
    mechanism: str | None = None
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    token_url: str | None = None
    client_id: str | None = None
    client_secret: str | None = field(default=None, repr=False)
    scope: str | None = None

    @property
    def protocol(self) -> str:
        """Kafka's name for what is in use."""
        tls = self.tls or any((self.ca, self.certificate, self.key))
        if self.mechanism:
            return "SASL_SSL" if tls else "SASL_PLAINTEXT"
        return "SSL" if tls else "PLAINTEXT"

    def config(self) -> dict[str, Any]:
        """Return librdkafka's settings."""
        given = {
            "security.protocol": self.protocol,
            "ssl.ca.location": self.ca,
            "ssl.certificate.location": self.certificate,
            "ssl.key.location": self.key,
            "ssl.key.password": self.key_password,
            "sasl.mechanism": self.mechanism,
            "sasl.username": self.user,
            "sasl.password": self.password,
        }
        if self.mechanism == "OAUTHBEARER":
            given |= {
                "sasl.oauthbearer.method": "oidc",
                "sasl.oauthbearer.token.endpoint.url": self.token_url,
                "sasl.oauthbearer.client.id": self.client_id,
                "sasl.oauthbearer.client.secret": self.client_secret,
                "sasl.oauthbearer.scope": self.scope,
            }
        return {name: value for name, value in given.items() if value is not None}


@dataclass(frozen=True, kw_only=True)
class KafkaSettings:
    """One topic and how it is used. What is None is left as the topic has it.

    A topic that is not there is made: with 3 partitions, a day of retention and the broker's replication
    where nothing is said.
    compression       gzip, lz4, zstd, snappy or none
    record_time       "log": the topic's own time; "header": the header `headrace.record-time` where a record
                      has one
    like              a topic beside this one: a new topic gets its replication and retention where nothing is
                      said
    compacted         a new topic keeps the last record of each key, and that for ever
    record_bytes_max  the largest record that is taken; None: the broker's limit, about 1 MB
    group             the consumer group under which positions are published
    """

    brokers: str
    topic: str
    partitions: int | None = None
    replication: int | None = None
    like: str | None = None
    compacted: bool = False
    retention: timedelta | None = None
    compression: str | None = None
    record_time: str = "log"
    record_bytes_max: int | None = None
    group: str | None = None
    security: KafkaSecurity = field(default_factory=KafkaSecurity)
    client: Mapping[str, str] = field(default_factory=dict)

    @property
    def group_name(self) -> str:
        """The consumer group of the engine; other readers add a dot and their name."""
        return self.group or f"headrace-{self.topic}"
