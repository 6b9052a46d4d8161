"""What the producer, the consumer and the administrator of one log share: settings, and what went wrong."""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from contextlib import contextmanager
from typing import Any, TypeVar

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient

from headrace.errors import HeadraceError, RefusedError, TransientError
from headrace.log.kafka.settings import KafkaSettings
from headrace.log.protocol import RecordTooLargeError

__all__ = [
    "ANSWER_S_MAX",
    "COORDINATOR_AWAY",
    "TOO_LARGE_FIX",
    "Connection",
    "TopicUnknownError",
    "callbacks",
]

ANSWER_S_MAX = 8.0
"""How long one question to the cluster may take before it counts as not ready."""

_AGAIN_S = 2.0
"""After so long without an answer a question that only looks is put again, through another administrator."""

_LOOK_S = 0.02
_SETTLED_S_MAX = 3.0
_PAUSE_S = 0.05
_PROBE_S_MAX = 0.5
_PROBES_MAX = 3

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
_LOGIN = (KafkaError._AUTHENTICATION, KafkaError.SASL_AUTHENTICATION_FAILED, KafkaError._SSL)
"""What brokers may refuse for a while after they took it: a password or certificate that is being changed."""

TOO_LARGE_FIX = "raise record_bytes_max in the profile (the topic's max.message.bytes), or split the record"
_FIX = "correct its settings in the profile (user, password and TLS among them), or ask who runs the brokers"
_GONE = (KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC, KafkaError.UNKNOWN_TOPIC_ID)
_AWAY = (
    KafkaError._TRANSPORT,
    KafkaError._ALL_BROKERS_DOWN,
    KafkaError._TIMED_OUT,
    KafkaError._MSG_TIMED_OUT,
    KafkaError._RESOLVE,
    KafkaError._NOENT,
)
COORDINATOR_AWAY = (
    KafkaError.NOT_COORDINATOR,
    KafkaError.COORDINATOR_NOT_AVAILABLE,
    KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
)
"""What brokers say of a group while they make their topic of groups, read it, or one follows another."""

_STALE = (
    *COORDINATOR_AWAY,
    KafkaError.NOT_LEADER_FOR_PARTITION,
    KafkaError.LEADER_NOT_AVAILABLE,
    KafkaError.FENCED_LEADER_EPOCH,
    KafkaError.UNKNOWN_LEADER_EPOCH,
    KafkaError.UNKNOWN_TOPIC_OR_PART,
    KafkaError.OFFSET_NOT_AVAILABLE,
)
"""What brokers say while they, or this client, know old metadata: of a new topic, after a restart.

And a leader that has just been elected, until its followers have told it how far they are.
"""

# These three are told apart by text: their codes are those of a broker that is away.
_CERTIFICATE_REFUSED = re.compile(r"alert (bad |unsupported |unknown )?(certificate|ca\b)", re.IGNORECASE)
_TOKEN_REFUSED = re.compile(r"invalid_|unauthorized_client|access_denied")
_NO_TLS_THERE = "PLAINTEXT broker listener"

_Result = TypeVar("_Result")


class TopicUnknownError(TransientError):
    """A broker does not know the topic or a partition: it is gone, or so new that not every broker knows."""


class Connection:
    """The way to one cluster. `place` names the log in errors; no error says a secret."""

    def __init__(self, settings: KafkaSettings, place: str) -> None:
        self.settings = settings
        self.place = place
        self._failure: HeadraceError | None = None
        self._answered = False
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

    def beside(self) -> Connection:
        """Return another one to the same cluster, for what nobody waits for."""
        other = Connection(self.settings, self.place)
        other._answered = self._answered
        return other

    @property
    def admin(self) -> AdminClient:
        """The administrator, made when first asked for."""
        if self._admin is None:
            self._admin = self.made(AdminClient)
        return self._admin

    def forget_metadata(self) -> None:
        """Let the next question go through a new administrator.

        An old one goes on for seconds asking the leader, or in the leader's epoch, that it knew before a
        broker came back.
        """
        self._admin = None

    def _note(self, error: KafkaError) -> None:
        found = self.error_of(error)
        # What an operator must do stays known while connections are tried again and again. Of two hints the
        # later one holds: a broker that dies in a handshake seems to know no TLS.
        if self._failure is None or _weight(found) >= max(_weight(self._failure), 1):
            self._failure = found

    def answered(self) -> None:
        """Forget what went wrong: the cluster has answered."""
        self._failure, self._answered = None, True

    def raise_refused(self) -> None:
        """Raise when a client was told something that trying again does not mend."""
        if isinstance(self._failure, RefusedError):
            raise self._failure

    def not_ready(self) -> HeadraceError:
        """Return the error for a cluster that does not answer, with the reason that clients were told."""
        if self._failure is not None and _weight(self._failure):
            return self._failure
        if not self._answered and (address := self._listening()) is not None:
            # A broker whose listener wants TLS or SASL closes the connection and gives no reason.
            security = self.settings.security
            token = ", or the token endpoint gives no token" if security.mechanism == "OAUTHBEARER" else ""
            return TransientError(
                f"{self.place}: {address} takes connections, but gives no answer to Kafka's protocol over "
                f"{security.protocol}{token}",
                fix="see which security this listener wants (tls, sasl), and whether it is Kafka",
            )
        return self._away()

    def _away(self) -> TransientError:
        return TransientError(f"{self.place}: no answer from {self.settings.brokers}")

    def _listening(self) -> str | None:
        """Return one of the brokers' addresses at which something listens."""
        for address in self.settings.brokers.split(",")[:_PROBES_MAX]:
            host, _, port = address.strip().rpartition(":")
            try:
                socket.create_connection((host.strip("[]"), int(port)), _PROBE_S_MAX).close()
            except (OSError, ValueError):
                continue
            return address.strip()
        return None

    def error_of(self, error: KafkaError) -> HeadraceError:
        """Return our error for Kafka's."""
        code, text, place = error.code(), error.str(), self.place
        if code == KafkaError._AUTHENTICATION and "token:" in text and not _TOKEN_REFUSED.search(text):
            return TransientError(
                f"{place}: the token endpoint gives no token",
                fix="see whether token_url is right and answers",
            )
        if code in _LOGIN and self._answered:
            # Who was let in before waits until an operator mends it, on whichever side. An error that ended
            # the run would need a second operator here.
            return TransientError(f"{place}: {_REFUSED[code]}, which they took before", fix=_FIX)
        if code in _REFUSED:
            return RefusedError(f"{place}: {_REFUSED[code]}", fix=_FIX)
        if code in _GONE:
            return TopicUnknownError(f"{place}: a broker does not know the topic")
        if code == KafkaError.MSG_SIZE_TOO_LARGE:
            return RecordTooLargeError(f"{place}: a record is larger than the topic takes", fix=TOO_LARGE_FIX)
        if _CERTIFICATE_REFUSED.search(text):
            kind = TransientError if self._answered else RefusedError
            return kind(
                f"{place}: the brokers want a certificate of the client, or refuse the one that it has",
                fix="set certificate and key in the profile, signed by a CA that the brokers trust",
            )
        if _NO_TLS_THERE in text:
            return TransientError(
                f"{place}: {self.settings.brokers} does not answer to TLS",
                fix="use the broker's port for TLS, or take tls, ca, certificate and key out of the profile",
            )
        if code in _AWAY:
            return self._away()
        if code in COORDINATOR_AWAY:
            return TransientError(
                f"{place}: no broker coordinates the group or transaction yet ({error.name()})",
                fix="see whether the brokers' topics __consumer_offsets, __transaction_state are available",
            )
        return TransientError(f"{place}: {error.name()} from {self.settings.brokers}")

    def look(self, question: Callable[[], dict[Any, Future[_Result]]]) -> dict[Any, _Result]:
        """Return the answers to a question that only looks; see `settled`."""
        return self.settled(lambda: self.ask(question(), again=question))

    def settled(self, answer: Callable[[], _Result]) -> _Result:
        """Return what `answer` returns; while brokers answer of old metadata, it is called again.

        Of a topic or partition made a moment ago, or a broker that came back: soon settled. Raises our error
        for Kafka's.
        """
        end = None
        while True:
            try:
                return answer()
            except KafkaException as error:
                # Counted from the first such answer: it may have taken longer itself, of a leader that died.
                end = end or time.monotonic() + _SETTLED_S_MAX
                if error.args[0].code() not in _STALE or time.monotonic() > end:
                    raise self.error_of(error.args[0]) from None
            self.forget_metadata()
            time.sleep(_PAUSE_S)

    def ask(
        self,
        futures: dict[Any, Future[_Result]],
        *,
        asked: AdminClient | None = None,
        again: Callable[[], dict[Any, Future[_Result]]] | None = None,
        seconds_max: float = ANSWER_S_MAX,
    ) -> dict[Any, _Result]:
        """Return the answers to questions. Raises KafkaException for one, or that no answer came.

        `asked` is who was asked, when that was some time ago: an administrator that nobody holds any more
        ends its questions. `again` asks what only looks: an administrator goes on for seconds asking a leader
        that died, where a new one finds its successor. The first one that answers is taken, so that a
        cluster that needs long has all the time there is.
        """
        self._failure = None  # what went wrong before may be mended; what has not been is told again
        pending = [(asked or self.admin, futures)]
        now = time.monotonic()
        end, next_at = now + seconds_max, now + _AGAIN_S
        while pending and now <= end:
            for one in list(pending):
                try:
                    answers = self._answers(*one)
                except KafkaException as error:
                    if error.args[0].code() not in _AWAY:
                        raise
                    pending.remove(one)
                else:
                    if answers is not None:
                        self.answered()
                        return answers
            self.raise_refused()
            if again is not None and now > next_at:
                self._let_go(pending)
                pending.append((self.admin, again()))
                next_at = now + _AGAIN_S
            wait([future for _, each in pending for future in each.values()], _LOOK_S)
            now = time.monotonic()
        if pending:
            # A question about a group that reached a broker while it came back is never answered,
            # and neither is one that follows it through the same administrator.
            self._let_go(pending)
        raise self.not_ready()

    def _let_go(self, pending: list[tuple[AdminClient, dict[Any, Future[Any]]]]) -> None:
        """Ask no more of those who were asked; somebody else may have made a new administrator already."""
        if any(client is self._admin for client, _ in pending):
            self.forget_metadata()

    def _answers(self, asked: AdminClient, futures: dict[Any, Future[_Result]]) -> dict[Any, _Result] | None:
        """Return the answers, None while one is missing. Raises KafkaException when one is an error."""
        asked.poll(0)  # what went wrong is told in here
        if not all(future.done() for future in futures.values()):
            return None
        return {key: future.result() for key, future in futures.items()}


@contextmanager
def callbacks() -> Iterator[None]:
    """Around poll and flush of a producer: raise KafkaException for what went wrong in a callback.

    The client raises a fatal error within itself and then goes on to reports of delivery, so that Python
    sees a call that was made with an error on its hands, and says SystemError.
    """
    try:
        yield
    except SystemError as error:
        if isinstance(error.__cause__, KafkaException):
            raise error.__cause__ from None
        raise


def _weight(error: HeadraceError) -> int:
    """Return how much an error says: what an operator must do, a hint, or that somebody is away."""
    return 2 if isinstance(error, RefusedError) else int(bool(error.fix))
