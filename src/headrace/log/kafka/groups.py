"""Positions of readers as consumer groups, where Kafka's own tools look for them; and marks of loads."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager, suppress

from confluent_kafka import Consumer, ConsumerGroupTopicPartitions, KafkaException, TopicPartition
from confluent_kafka.admin import ListConsumerGroupsResult

from headrace.errors import HeadraceError, RefusedError, TransientError
from headrace.log.kafka.connection import ANSWER_S_MAX, COORDINATOR_AWAY, Connection

__all__ = ["Groups"]

_OFFSET_NONE = -1001
_PATIENCE_S = 10.0
_LAST_S = 3.0
"""So long are positions that the brokers refused tried again: at a time, and when the log is closed."""
_AGAIN_S = 0.2
_PACE_S = 1.0
"""Positions are for others to look at, and each commit is a record that a broker writes."""
_REFUSED_S_MAX = 30.0
"""What is refused again and again is sent again so rarely."""
_LOOK_S = 1.0
_LOAD_S = 60.0
"""A mark of a load holds so long: longer than another broker takes to step in for one that died."""
_RENEW_S = 3.0
_BEGIN_S_MAX = 60.0


class Groups:
    """Commits positions in a thread of its own: an epoch never waits for it and never fails by it.

    Once a second at most, or as soon as somebody asks for them. What the brokers refuse is tried again, more
    and more rarely, and when the log is closed.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        # A broker answers what comes over one connection in turn, and a commit takes ten times as long as
        # the questions that each read asks.
        self._commits = connection.beside()
        self._topic = connection.settings.topic
        self._prefix = connection.settings.group_name
        self._wanted: dict[str, dict[int, int]] = {}
        """The newest positions that the brokers do not have, by reader."""
        self._changed = threading.Condition()
        self._given = self._tried = 0
        """How many times positions were given, and how many of these were tried to commit."""
        self._asking_now = 0
        self._loads: dict[str, Consumer] = {}
        self._closed = False
        self._quiet_until = 0.0
        self._thread: threading.Thread | None = None

    def _group(self, reader: str) -> str:
        return self._prefix if reader == "engine" else f"{self._prefix}.{reader}"

    def publish(self, reader: str, positions: Mapping[int, int]) -> None:
        """Commit `positions` within a second or so; of those that follow each other only the last."""
        with self._changed:
            self._wanted.setdefault(reader, {}).update(positions)
            self._given += 1
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="headrace-offsets", daemon=True)
                self._thread.start()
            self._changed.notify_all()

    def _run(self) -> None:
        last, pace_until, again_s = False, 0.0, _PACE_S
        while not last:
            with self._changed:
                refused_before = bool(self._wanted) and self._given == self._tried
                self._changed.wait_for(
                    lambda: self._given > self._tried or self._closed, again_s if refused_before else None
                )
                pause = pace_until - time.monotonic()
                self._changed.wait_for(lambda: self._asking_now or self._closed, max(0.0, pause))
                again = self._given == self._tried
                last = again and self._closed
                wanted, self._wanted = self._wanted, {}
                given = self._given
            seconds_max = _LAST_S if again else ANSWER_S_MAX  # a close waits for what is under way
            until = time.monotonic() + _LAST_S if last else None
            refused = {
                reader: positions
                for reader, positions in wanted.items()
                if not self._taken(self._group(reader), positions, seconds_max, until)
            }
            pace_until = time.monotonic() + _PACE_S
            again_s = min(2 * again_s, _REFUSED_S_MAX) if refused else _PACE_S
            with self._changed:
                for reader, positions in refused.items():  # what came meanwhile is newer
                    self._wanted[reader] = {**positions, **self._wanted.get(reader, {})}
                self._tried = given
                self._changed.notify_all()

    def _taken(
        self, group: str, positions: Mapping[int, int], seconds_max: float, until: float | None
    ) -> bool:
        """Commit once, or again and again `until` then; return whether the brokers have the positions.

        They are for others to see: those that count are in the store. So nothing is raised.
        """
        places = [TopicPartition(self._topic, number, at) for number, at in positions.items()]
        while True:
            left = seconds_max if until is None else max(_AGAIN_S, until - time.monotonic())
            try:
                self._commit(group, places, left)
                return True
            except (KafkaException, HeadraceError):
                if until is None or time.monotonic() + _AGAIN_S > until:
                    return False
            time.sleep(_AGAIN_S)

    def _commit(self, group: str, places: list[TopicPartition], seconds_max: float = ANSWER_S_MAX) -> None:
        # Through the administrator: a consumer that commits waits a minute for a broker that is gone.
        given = [ConsumerGroupTopicPartitions(group, places)]
        asked = self._commits.admin.alter_consumer_group_offsets(given)
        _require_taken(self._commits.ask(asked, seconds_max=seconds_max)[group].topic_partitions)

    def _settle(self) -> None:
        """Wait until what was given so far was tried, also while more is given."""
        with self._changed:
            given = self._given
            self._asking_now += 1
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._tried >= given, _PATIENCE_S)
            self._asking_now -= 1

    def readers(self, partitions: int, name: str | None = None) -> dict[str, dict[int, int]]:
        """Return the positions of every consumer group that has some in the topic, ours by reader.

        A cluster may have hundreds of groups, and each is asked; with `name`, that reader's alone.
        """
        self._settle()
        found: dict[str, dict[int, int]] = {}
        places = [TopicPartition(self._topic, number) for number in range(partitions)]
        for group in self._listed() if name is None else [self._group(name)]:
            try:
                with self._asking(group) as consumer:
                    answer = self._places(consumer, places)
            except RefusedError:
                continue  # a group that the user may not look at
            held = {p.partition: p.offset for p in answer if p.offset >= 0}
            if held and not self._is_load(group):
                found[self._reader(group)] = held
        return found

    def _listed(self) -> list[str]:
        """Return the names of the cluster's consumer groups."""
        connection = self._connection

        def question() -> dict[str, Future[ListConsumerGroupsResult]]:
            return {"groups": connection.admin.list_consumer_groups()}

        def listed() -> list[str]:
            found = connection.ask(question(), again=question)["groups"]
            for error in found.errors or ():
                # A broker that still reads its groups names none of them: a load would go on unseen.
                if error.code() in COORDINATOR_AWAY:
                    raise KafkaException(error)
            return sorted(each.group_id for each in found.valid or ())

        return connection.settled(listed)

    def _reader(self, group: str) -> str:
        if group == self._prefix:
            return "engine"
        return group.removeprefix(f"{self._prefix}.")

    # --- loads

    def _is_load(self, group: str) -> bool:
        return group.startswith(f"{self._prefix}.load-")

    @contextmanager
    def load(self) -> Iterator[None]:
        """Say while open that the topic is being loaded: a group whose offset is the time until it holds."""
        group = f"{self._prefix}.load-{uuid.uuid4().hex[:8]}"
        over = threading.Event()

        def renew() -> None:
            while not over.wait(_RENEW_S):
                with suppress(HeadraceError):  # the next renewal comes before the mark is over
                    self._mark(group, time.time() + _LOAD_S)

        self._begin(group)
        over.wait(_LOOK_S)  # from now on every reader knows
        thread = threading.Thread(target=renew, name="headrace-load", daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()
            with suppress(HeadraceError):  # it ends by itself
                self._mark(group, 0.0)
            self._forget(group)

    def _begin(self, group: str) -> None:
        """Set the first mark. A broker that was just started takes none until it has made its own topics."""
        end = time.monotonic() + _BEGIN_S_MAX
        while True:
            try:
                return self._mark(group, time.time() + _LOAD_S)
            except RefusedError:
                raise
            except HeadraceError as error:
                if time.monotonic() > end:
                    raise TransientError(
                        f"{error.message}: no mark can be set that the topic is being loaded",
                        fix="see whether the brokers' topic __consumer_offsets is available",
                    ) from None
            time.sleep(_AGAIN_S)

    def _mark(self, group: str, until: float) -> None:
        try:
            self._commit(group, [TopicPartition(self._topic, 0, int(until * 1000))])
        except KafkaException as error:
            raise self._connection.error_of(error.args[0]) from None

    def _forget(self, group: str) -> None:
        """Take the group of a load away: each that is left costs every reader a question."""
        try:
            self._connection.ask(self._connection.admin.delete_consumer_groups([group]))
        except (KafkaException, HeadraceError):
            return  # brokers take an empty group away by themselves after a week

    def loading(self) -> bool:
        """Whether somebody loads the topic now; that nobody does is believed for a second."""
        if time.monotonic() < self._quiet_until:
            return False
        until = time.monotonic() + _LOOK_S
        loading = self._marked()
        self._quiet_until = 0.0 if loading else until
        return loading

    def _marked(self) -> bool:
        now_ms = time.time() * 1000
        # A broker that is away lists no groups. Of a load that is known, its group's own coordinator is
        # asked: it answers or fails.
        for group in self._listed():
            if self._is_load(group) and group not in self._loads:
                self._loads[group] = self._consumer(group)
        for group in sorted(self._loads):
            places = self._places(self._loads[group], [TopicPartition(self._topic, 0)])
            if any(place.offset > now_ms for place in places):
                return True
            self._loads.pop(group).close()
        return False

    # --- offsets of a group

    def _consumer(self, group: str) -> Consumer:
        # The administrator has a question for this too, and librdkafka ends the process when a broker that
        # just came back answers it with NOT_COORDINATOR (its issue 5040). A consumer asks again.
        return self._connection.made(Consumer, **{"group.id": group, "enable.auto.commit": False})

    @contextmanager
    def _asking(self, group: str) -> Iterator[Consumer]:
        consumer = self._consumer(group)
        try:
            yield consumer
        finally:
            consumer.close()

    def _places(self, consumer: Consumer, places: list[TopicPartition]) -> Sequence[TopicPartition]:
        """Return the offsets that the consumer's group has in places of the topic."""

        def answer() -> Sequence[TopicPartition]:
            return _require_taken(consumer.committed(places, timeout=_PATIENCE_S))

        found = self._connection.settled(answer)
        self._connection.answered()
        return found

    def close(self) -> None:
        """Commit what is waiting, and end: after some seconds also where the brokers do not take it."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join(_PATIENCE_S + _LAST_S)
        while self._loads:
            self._loads.popitem()[1].close()


def _require_taken(places: Sequence[TopicPartition]) -> Sequence[TopicPartition]:
    """Raise KafkaException for the first place with an error: the answer itself is none."""
    for place in places:
        if place.error is not None:
            raise KafkaException(place.error)
    return places
