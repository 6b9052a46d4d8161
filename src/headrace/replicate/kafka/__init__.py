"""Tables as topics of Kafka: a record for each row that changed, one without a value for one that went."""

# ruff: noqa: RUF009 - `setting` gives dataclasses.field(...), which is what a default of a dataclass may be

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from headrace.errors import ProfileError
from headrace.log.kafka.settings import CLIENT_SETTINGS, KafkaSecurity, KafkaSettings
from headrace.replicate.options import CommonOptions, Revealed, setting
from headrace.replicate.protocol import ReplicaWriter, Task

__all__ = ["KafkaReplica"]

_SASL = dict.fromkeys(("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"), "")


@dataclass(frozen=True, kw_only=True)
class KafkaReplica(CommonOptions):
    """Keeps tables as topics. Connects only in `open`."""

    brokers: str = setting(
        "text", "", "where the brokers are: `host:port`, several with commas", required=True
    )
    prefix: str = setting("text", "headrace-", "what topics are called: this, then the table's name")
    partitions: int = setting("whole number", 3, "how many partitions a new topic gets")
    replication: int | None = setting(
        "whole number", None, "on how many brokers a new topic is kept; none: the brokers' default"
    )
    record_bytes_max: int = setting("size", 1_000_000, "a row that makes a larger record is set aside")
    tls: str = setting("one of", "no", "whether connections are encrypted", choices={"no": "", "yes": ""})
    ca: str | None = setting("path", None, "the certificates to trust (PEM); none: the system's")
    certificate: str | None = setting("path", None, "the client's own certificate (PEM), for mutual TLS")
    key: str | None = setting("path", None, "the key of that certificate (PEM)")
    sasl: str | None = setting("one of", None, "how the client says who it is", choices=_SASL)
    user: str | None = setting("text", None, "who that is")
    password: Revealed | None = setting("secret", None, "the user's password")
    client: Mapping[str, str] | None = setting(
        "table of settings", None, "settings of librdkafka by their own names; not every one may be set"
    )

    def open(self, task: Task) -> ReplicaWriter:
        """See `Replica`."""
        from headrace.replicate.kafka.writer import KafkaWriter

        if not self.brokers:
            raise ProfileError(
                f"replica '{task.replica}' has no brokers", fix='write brokers = "localhost:9092"'
            )
        unknown = sorted(set(self.client or ()) - CLIENT_SETTINGS)
        if unknown:
            raise ProfileError(
                f"replica '{task.replica}': the client setting '{unknown[0]}' cannot be given",
                fix="one of: " + ", ".join(sorted(CLIENT_SETTINGS)),
            )
        return KafkaWriter(self, task)

    def settings(self) -> KafkaSettings:
        """Return how the cluster is reached; it holds secrets."""
        security = KafkaSecurity(
            tls=self.tls == "yes",
            ca=self.ca,
            certificate=self.certificate,
            key=self.key,
            mechanism=self.sasl,
            user=self.user,
            password=self.password.reveal() if self.password is not None else None,
        )
        return KafkaSettings(brokers=self.brokers, topic="", security=security, client=self.client or {})
