"""Where a stream lies, as a profile says it: one class of options for each log."""

# ruff: noqa: RUF009 - `option` gives dataclasses.field(...), which is what a default of a dataclass may be

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headrace.operate.format_options import FormatOptions
from headrace.operate.options import Kind, Report, option, read_options
from headrace.operate.secrets import Secret

if TYPE_CHECKING:
    from headrace.log.kafka import KafkaSettings

__all__ = ["EmbeddedBinding", "KafkaBinding", "StreamBinding", "kafka_settings", "read_binding"]

_LOGS = {"embedded": "", "kafka": ""}
_YES_NO = {"no": "", "yes": ""}


@dataclass(frozen=True)
class EmbeddedBinding(FormatOptions):
    """A stream in the embedded log."""

    log: str = option(Kind.CHOICE, "embedded", "which log holds the stream", choices=_LOGS)
    partitions: int | None = option(
        Kind.WHOLE,
        None,
        "how many partitions the log has; it can grow, never shrink; none: as many as there are",
        at_most=10_000,
    )
    retention: timedelta | None = option(Kind.DURATION, None, "how long records are kept; none: for ever")
    retention_bytes: int | None = option(Kind.SIZE, None, "how many bytes are kept; none: no limit")
    bytes_max: int | None = option(Kind.SIZE, None, "when the log is this full, appends are refused")


@dataclass(frozen=True)
class KafkaBinding(FormatOptions):
    """A stream on Kafka. What is not said is left as the topic has it; an absent topic is made."""

    log: str = option(Kind.CHOICE, "kafka", "which log holds the stream", choices=_LOGS)
    brokers: str = option(Kind.TEXT, "", "where the brokers are: `host:port`, several with commas")
    topic: str | None = option(Kind.TEXT, None, "the topic; none: named as the stream")
    partitions: int | None = option(
        Kind.WHOLE, None, "how many partitions the topic has; it can grow, never shrink; a new topic gets 3"
    )
    replication: int | None = option(Kind.WHOLE, None, "on how many brokers a new topic is kept")
    retention: timedelta | None = option(
        Kind.DURATION, None, "how long records are kept; a new topic gets 24 hours"
    )
    compression: str | None = option(
        Kind.CHOICE,
        None,
        "how records are packed; lz4 when nothing is said",
        choices={"gzip": "", "lz4": "", "zstd": "", "snappy": "", "none": ""},
    )
    record_time: str = option(
        Kind.CHOICE,
        "log",
        "where record times come from: the topic, or the header `headrace.record-time`",
        choices={"log": "", "header": ""},
    )
    record_bytes_max: int | None = option(
        Kind.SIZE, None, "the largest record that is taken; none: what brokers take, about 1 MB"
    )
    group: str | None = option(
        Kind.TEXT, None, "the consumer group that shows the engine's positions; none: headrace-TOPIC"
    )
    dead_letter_topic: str | None = option(
        Kind.TEXT, None, "a topic that gets the stream's dead letters; none: they stay in the store"
    )
    tls: str = option(Kind.CHOICE, "no", "whether connections are encrypted", choices=_YES_NO)
    ca: str | None = option(Kind.PATH, None, "the certificates to trust (PEM); none: the system's")
    certificate: str | None = option(Kind.PATH, None, "the client's own certificate (PEM), for mutual TLS")
    key: str | None = option(Kind.PATH, None, "the key of that certificate (PEM)")
    key_password: Secret | None = option(Kind.SECRET, None, "what opens that key")
    sasl: str | None = option(
        Kind.CHOICE,
        None,
        "how the client says who it is",
        choices={"PLAIN": "", "SCRAM-SHA-256": "", "SCRAM-SHA-512": "", "OAUTHBEARER": ""},
    )
    user: str | None = option(Kind.TEXT, None, "who that is")
    password: Secret | None = option(Kind.SECRET, None, "the user's password")
    token_url: str | None = option(Kind.TEXT, None, "OAUTHBEARER: where a token is asked for")
    client_id: str | None = option(Kind.TEXT, None, "OAUTHBEARER: who asks for it")
    client_secret: Secret | None = option(Kind.SECRET, None, "OAUTHBEARER: that client's secret")
    scope: str | None = option(Kind.TEXT, None, "OAUTHBEARER: what the token is for")
    client: Mapping[str, str] | None = option(
        Kind.SETTINGS, None, "settings of librdkafka by their own names; not every one may be set"
    )


StreamBinding = EmbeddedBinding | KafkaBinding


def read_binding(raw: object, *, path: str, folder: Path, report: Report) -> StreamBinding:
    """Read `streams.NAME = { … }`; its `log` says which options there are. Problems go to `report`."""
    on_kafka = isinstance(raw, Mapping) and raw.get("log") == "kafka"
    if not on_kafka:
        return read_options(EmbeddedBinding, raw, path=path, folder=folder, report=report)
    binding = read_options(KafkaBinding, raw, path=path, folder=folder, report=report)
    if not binding.brokers:
        report(path, "does not say where the brokers are", 'add brokers = "localhost:9092"')
    if binding.sasl in ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512") and not (
        binding.user and binding.password
    ):
        report(f"{path}.sasl", "needs a user and a password", 'add user = "…" and password = "${env:NAME}"')
    if binding.sasl == "OAUTHBEARER" and not (binding.token_url and binding.client_id):
        report(f"{path}.sasl", "needs token_url and client_id", 'add token_url = "https://…/token"')
    from headrace.log.kafka.settings import CLIENT_SETTINGS

    for name in binding.client or ():
        if name not in CLIENT_SETTINGS:
            report(
                f"{path}.client",
                f"'{name}' may not be set",
                "these may: " + ", ".join(sorted(CLIENT_SETTINGS)),
            )
    return binding


def kafka_settings(binding: KafkaBinding, stream: str) -> KafkaSettings:
    """Return the description of a stream's topic; secrets are looked up now. Raises ProfileError for one."""
    from headrace.log.kafka import KafkaSecurity, KafkaSettings

    def revealed(secret: Secret | None) -> str | None:
        return None if secret is None else secret.reveal()

    security: dict[str, Any] = {
        name: getattr(binding, name)
        for name in ("ca", "certificate", "key", "user", "token_url", "client_id", "scope")
    }
    for name in ("key_password", "password", "client_secret"):
        security[name] = revealed(getattr(binding, name))
    return KafkaSettings(
        brokers=binding.brokers,
        topic=binding.topic or stream,
        partitions=binding.partitions,
        replication=binding.replication,
        retention=binding.retention,
        compression=binding.compression,
        record_time=binding.record_time,
        record_bytes_max=binding.record_bytes_max,
        group=binding.group,
        security=KafkaSecurity(tls=binding.tls == "yes", mechanism=binding.sasl, **security),
        client=binding.client or {},
    )
