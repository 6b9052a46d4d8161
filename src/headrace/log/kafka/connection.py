"""What the producer, the consumer and the administrator of one log share: settings, and what went wrong."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient

from headrace.errors import HeadraceError, IntegrityError, RefusedError, TransientError
from headrace.log.kafka.settings import KafkaSettings

__all__ = ["TOO_LARGE_FIX", "Connection"]

_ANSWER_S_MAX = 8.0
"""How long one question to the cluster may take before it counts as not ready."""

_REFUSED = {
    KafkaError._AUTHENTICATION: "the brokers refuse the user, password or token",
    KafkaError.SASL_AUTHENTICATION_FAILED: "the brokers refuse the user, password or token",
    KafkaError.UNSUPPORTED_SASL_MECHANISM: "the brokers do not know this SASL mechanism",
    KafkaError._SSL: "no TLS connection: the certificate or the CA does not fit",
    KafkaError.TOPIC_AUTHORIZATION_FAILED: "the user may not use this topic",
    KafkaError.GROUP_AUTHORIZATION_FAILED: "the user may not use this consumer group",
    KafkaError.CLUSTER_AUTHORIZATION_FAILED: "the user may not do this on the cluster",
    KafkaError.TOPIC_EXCEPTION: "the brokers do not take this topic's name",
    KafkaError.INVALID_REPLICATION_FACTOR: "there are fewer brokers than the replication asks for",
    KafkaError.POLICY_VIOLATION: "a policy of the brokers forbids it",
    KafkaError._INVALID_ARG: "a client setting is wrong",
}
TOO_LARGE_FIX = "raise record_bytes_max in the profile (the topic's max.message.bytes), or split the record"
_FIX = "correct the stream's settings in the profile, or ask who runs the brokers"
_GONE = (KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC, KafkaError.UNKNOWN_TOPIC_ID)

_Result = TypeVar("_Result")


class Connection:
    """The way to one cluster. `place` names the log in errors; no error says a secret."""

    def __init__(self, settings: KafkaSettings, place: str) -> None:
        self.settings = settings
        self.place = place
        self._failure: KafkaError | None = None
        self._admin: AdminClient | None = None

    def config(self, **more: Any) -> dict[str, Any]:
        """Return librdkafka's settings for a client; `more` wins over what the profile says."""
        return {
            "client.id": "headrace",
            "reconnect.backoff.max.ms": 2_000,
            "log_level": 0,
            **self.settings.security.config(),
            **self.settings.client,
            "bootstrap.servers": self.settings.brokers,
            "error_cb": self._note,
            **more,
        }

    def made(self, kind: Callable[[dict[str, Any]], _Result], **more: Any) -> _Result:
        """Return a client. Raises RefusedError when the settings cannot be: a missing file, an odd value."""
        try:
            return kind(self.config(**more))
        except KafkaException as error:
            # librdkafka names the file or the setting; secrets are not among what it repeats.
            raise RefusedError(f"{self.place}: {error.args[0].str()}", fix=_FIX) from None

    @property
    def admin(self) -> AdminClient:
        """The administrator, made when first asked for."""
        if self._admin is None:
            self._admin = self.made(AdminClient)
        return self._admin

    def _note(self, error: KafkaError) -> None:
        # An answer that an operator must give stays known while connections are tried again and again.
        if self._failure is None or error.code() in _REFUSED:
            self._failure = error

    def answered(self) -> None:
        """Forget what went wrong: the cluster has answered."""
        self._failure = None

    def raise_refused(self) -> None:
        """Raise when a client was told something that trying again does not mend."""
        if self._failure is not None and self._failure.code() in _REFUSED:
            raise self.error_of(self._failure)

    def not_ready(self) -> HeadraceError:
        """Return the error for a cluster that does not answer, with the reason that clients were told."""
        if self._failure is not None:
            return self.error_of(self._failure)
        return TransientError(f"{self.place}: no answer from {self.settings.brokers}")

    def error_of(self, error: KafkaError) -> HeadraceError:
        """Return our error for Kafka's."""
        if error.code() in _REFUSED:
            return RefusedError(f"{self.place}: {_REFUSED[error.code()]}", fix=_FIX)
        if error.code() in _GONE:
            return IntegrityError(
                f"{self.place}: the topic is not there any more",
                fix="bring it back, or start with a new store",
            )
        if error.code() == KafkaError.MSG_SIZE_TOO_LARGE:
            return RefusedError(
                f"{self.place}: a record is larger than the topic takes",
                fix=TOO_LARGE_FIX,
            )
        return TransientError(f"{self.place}: {error.name()} from {self.settings.brokers}")

    def ask(self, futures: dict[Any, Future[_Result]]) -> dict[Any, _Result]:
        """Return the answers to questions. Raises KafkaException for one, or that no answer came."""
        end = time.monotonic() + _ANSWER_S_MAX
        for future in futures.values():
            while not future.done():
                self.admin.poll(0.002)
                self.raise_refused()
                if time.monotonic() > end:
                    raise self.not_ready()
        answers = {}
        for key, future in futures.items():
            try:
                answers[key] = future.result()
            except KafkaException as error:
                if error.args[0].code() in (KafkaError._TIMED_OUT, KafkaError._TRANSPORT):
                    raise self.not_ready() from None
                raise
        self.answered()
        return answers
