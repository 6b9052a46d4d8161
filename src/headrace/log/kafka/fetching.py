"""Reads a topic from positions that the caller keeps: fetches, holds back, and gives in record-time order."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime
from itertools import groupby, pairwise

import numpy as np
from confluent_kafka import Consumer, KafkaError, Message, TopicPartition

from headrace.log.kafka.chunks import Fetched, take
from headrace.log.kafka.connection import Connection, TopicUnknownError
from headrace.log.kafka.offsets import end_offsets, ranges
from headrace.log.positions import start_positions
from headrace.log.protocol import Slice

__all__ = ["KafkaFetcher"]

_CHUNK = 2_000
"""Messages of one call: librdkafka gives 1,000 to 5,000 at a time at twice the rate of 100,000."""

_FETCH_WAIT_MS = 100
_QUEUED_KBYTES = 16_384
_HELD_ROWS_MAX = 400_000
_HELD_BYTES_MAX = 128 * 1024 * 1024
_SILENCE_S_MAX = 5.0
_LOOK_S = 0.1


class KafkaFetcher:
    """Reads all partitions of one topic. One thread at a time."""

    def __init__(self, connection: Connection, closed: threading.Event) -> None:
        self._connection = connection
        self._topic = connection.settings.topic
        self._by_header = connection.settings.record_time == "header"
        self._closed = closed
        self._consumer: Consumer | None = None
        self._held: dict[int, Fetched] = {}
        self._assigned = False

    def read(
        self,
        positions: Mapping[int, int],
        *,
        partitions: int,
        asked: datetime,
        rows_max: int,
        bytes_max: int,
        wait: float,
        confirm: Callable[[], Callable[[], None]],
    ) -> Slice:
        """See `Log.read`; `asked` is the clock before the call.

        `confirm` is called when records were fetched: it asks whether the topic is still the one that was
        opened. What it returns raises when it is not; then nothing is given.
        """
        deadline = time.monotonic() + wait
        self._go_to(positions, partitions)
        held = self._held
        if not self._assigned:
            ends = end_offsets(self._connection, held, committed=False)
            if not wait and all(one.next >= ends[number] for number, one in held.items()):
                # An unused lane fetches nothing.
                return self._given(ends, asked, rows_max, bytes_max, confirm)
            self._assign()
        while True:
            if not any(one.rows for one in held.values()) and wait:
                self._poll(max(0.0, min(_LOOK_S, deadline - time.monotonic())))
            self._drain(rows_max, bytes_max)
            over = time.monotonic() >= deadline or self._closed.is_set()
            if over or any(one.rows for one in held.values()):
                break
        # The *uncommitted* ends: behind them nothing can be that was written before now, not even a record
        # of a transaction that is still open.
        ends = end_offsets(self._connection, held, committed=False)
        silent, committed = self._fill(ends, rows_max, bytes_max)
        found = self._given(ends, asked, rows_max, bytes_max, confirm)
        open_ones = {n for n, at in found.next.items() if committed.get(n, ends[n]) <= at < ends[n]}
        if silent and not found.records.num_rows:
            # An empty slice says that there is nothing; behind the silent partition something waits.
            raise self._connection.not_ready()
        return replace(found, unsettled=frozenset(open_ones))

    # --- where to read

    def _go_to(self, positions: Mapping[int, int], partitions: int) -> None:
        """Fetch from `positions`; what is held already stays when it begins there."""
        held = self._held
        same = len(held) == partitions and all(
            number in held and held[number].position == at for number, at in positions.items()
        )
        if same and len(positions) == len(held):
            return
        checked = start_positions(self._connection.place, ranges(self._connection, partitions), positions)
        if {number: one.position for number, one in held.items()} == checked:
            return
        self._held = {number: Fetched(number, at, at) for number, at in checked.items()}
        self._assigned = False

    def _assign(self) -> None:
        if self._consumer is None:
            client = self._connection.settings.client
            self._consumer = self._connection.made(
                Consumer,
                **{
                    "group.id": self._connection.settings.group_name,
                    "enable.auto.commit": False,
                    "enable.auto.offset.store": False,
                    "auto.offset.reset": "error",
                    "enable.partition.eof": True,
                    "isolation.level": "read_committed",
                    "fetch.queue.backoff.ms": 2,
                    "fetch.wait.max.ms": client.get("fetch.wait.max.ms", _FETCH_WAIT_MS),
                    "queued.max.messages.kbytes": client.get("queued.max.messages.kbytes", _QUEUED_KBYTES),
                    "allow.auto.create.topics": False,
                },
            )
        places = [TopicPartition(self._topic, number, one.next) for number, one in self._held.items()]
        self._consumer.assign(places)
        self._consumer.resume(places)  # the client keeps a pause over a new assignment
        self._assigned = True

    # --- fetching

    def _poll(self, seconds: float) -> bool:
        """Wait for a message so long; returns whether something came."""
        assert self._consumer is not None  # noqa: S101 - `_go_to` came before
        message = self._consumer.poll(seconds)
        if message is None:
            self._connection.raise_refused()
            return False
        self._take([message])
        return True

    def _drain(self, rows_max: int, bytes_max: int) -> None:
        """Take what has come already."""
        assert self._consumer is not None  # noqa: S101 - `_go_to` came before
        while not self._enough(rows_max, bytes_max):
            if any(self._much(one) and not one.paused for one in self._held.values()):
                return
            messages = self._consumer.consume(_CHUNK, 0)
            if messages:
                self._take(messages)
            if len(messages) < _CHUNK:
                return  # whoever asks on meets what is sent just now, one by one, and never sees an end

    def _enough(self, rows_max: int, bytes_max: int) -> bool:
        held = self._held.values()
        rows, size = sum(one.rows for one in held), sum(one.bytes for one in held)
        if all(one.at_end or (one.paused and one.rows) for one in held):
            return True
        return (rows >= rows_max or size >= bytes_max) and all(one.rows or one.at_end for one in held)

    def _take(self, messages: list[Message]) -> None:
        if not any(map(Message.error, messages)):
            self._add(messages)
            return
        # In their order: an end that is told behind records moves on from them.
        for failed, some in groupby(messages, key=lambda message: message.error() is not None):
            if failed:
                for message in some:
                    self._note(message)
            else:
                self._add(list(some))

    def _add(self, messages: list[Message]) -> None:
        numbers = np.fromiter(map(Message.partition, messages), np.int32, len(messages))
        borders = [0, *(np.flatnonzero(np.diff(numbers)) + 1).tolist(), len(messages)]
        for start, end in pairwise(borders):
            one = self._held.get(int(numbers[start]))
            if one is not None:
                one.add(messages[start:end], by_header=self._by_header)

    def _note(self, message: Message) -> None:
        """Take note of an end, or raise what went wrong."""
        error = message.error()
        if error.code() == KafkaError._PARTITION_EOF:
            one = self._held.get(message.partition())
            if one is not None and message.offset() >= one.next:
                # Offsets up to here that came with no message held none: marks of transactions, compaction.
                one.next = message.offset()
        elif error.code() == KafkaError._AUTO_OFFSET_RESET:
            positions = {number: one.position for number, one in self._held.items()}
            self._held = {}
            start_positions(self._connection.place, ranges(self._connection, len(positions)), positions)
            raise TopicUnknownError(f"{self._connection.place}: the brokers changed while it was read")
        elif error.fatal() or not error.retriable():
            found = self._connection.error_of(error)
            self._held = {}
            raise found

    def _fill(self, ends: Mapping[int, int], rows_max: int, bytes_max: int) -> tuple[bool, Mapping[int, int]]:
        """Fetch until there is enough or all that is there; a partition far behind is waited for.

        Returns whether one stayed silent, because its broker is away, and the ends before open transactions
        if they were asked for.
        """
        silent = False
        begun = silent_since = time.monotonic()
        goals: Mapping[int, int] | None = None
        self._mark_ends(ends)
        while not self._closed.is_set() and not self._enough(rows_max, bytes_max):
            if all(one.at_end for one in self._held.values()):
                break
            self._hold_back()
            if self._poll(_LOOK_S):
                self._drain(rows_max, bytes_max)
                silent_since = time.monotonic()
            if goals is None and time.monotonic() - begun > _LOOK_S:
                # What lies behind an open transaction is not given to anybody before that ends, also while
                # other partitions go on.
                goals = end_offsets(self._connection, self._held, committed=True)
            self._mark_ends(goals or ends)
            if time.monotonic() - silent_since > _SILENCE_S_MAX:
                silent = True  # what came of the others is given as far as it goes
                break
        self._hold_back()
        return silent, goals or {}

    def _mark_ends(self, ends: Mapping[int, int]) -> None:
        for number, one in self._held.items():
            one.at_end = one.next >= ends[number]

    def _hold_back(self) -> None:
        """Fetch no more of partitions of which much is held, while others are behind."""
        assert self._consumer is not None  # noqa: S101 - `_go_to` came before
        for number, one in self._held.items():
            if not one.paused and self._much(one):
                self._consumer.pause([TopicPartition(self._topic, number)])
                one.paused = True
            elif one.paused and not self._much(one, share=0.5):
                self._consumer.resume([TopicPartition(self._topic, number)])
                one.paused = False

    def _much(self, one: Fetched, *, share: float = 1.0) -> bool:
        """Whether a partition holds more than its part of what may be held, or than `share` of that."""
        part = share / len(self._held)
        return one.rows > part * _HELD_ROWS_MAX or one.bytes > part * _HELD_BYTES_MAX

    # --- giving

    def _given(
        self,
        ends: Mapping[int, int],
        asked: datetime,
        rows_max: int,
        bytes_max: int,
        confirm: Callable[[], Callable[[], None]],
    ) -> Slice:
        held = self._held
        # Asked after the last fetch, so that it holds for all of them; the answer comes while rows are made.
        confirmed = confirm() if any(one.next > one.position for one in held.values()) else None
        begun = {number: one.position for number, one in held.items()}
        records, counts = take(list(held.values()), rows_max=max(rows_max, 1), bytes_max=max(bytes_max, 1))
        if confirmed is not None:
            confirmed()
        for number, one in held.items():
            one.drop(counts.get(number, 0))
        following = {number: one.position for number, one in held.items()}
        gaps = {}
        for number, at in following.items():
            passed = at - begun[number] - counts.get(number, 0)
            if passed:
                gaps[number] = passed
        idle = {number: asked for number, at in following.items() if at >= ends[number]}
        known = {number: max(end, following[number]) for number, end in ends.items()}
        return Slice(records, following, idle, gaps, known)

    def close(self) -> None:
        """Give back the consumer."""
        if self._consumer is not None:
            self._consumer.close()
            self._consumer = None
