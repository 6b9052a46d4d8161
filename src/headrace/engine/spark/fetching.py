"""Reads a range of one Kafka partition, on an executor."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

import pyarrow as pa
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from headrace.engine.spark.task import LaneTask
from headrace.errors import IntegrityError, RefusedError
from headrace.log.kafka.chunks import Fetched, take
from headrace.log.kafka.connection import Connection

__all__ = ["Found", "RangeReader"]

_CHUNK = 2_000
_WAIT_S = 0.1
_SILENCE_S_MAX = 30.0
_CHUNK_BYTES_MAX = 32 * 1024 * 1024


@dataclass(frozen=True)
class Found:
    """A part of a range: `records` (RECORD_SCHEMA) from `start`, reading stands at `next` afterwards.

    gaps  offsets that never held a record; lost: those that retention took before they were read
    """

    records: pa.Table
    start: int
    next: int
    gaps: int
    lost: int


class RangeReader:
    """Reads ranges of one topic, one after the other; keeps its connection from range to range."""

    def __init__(self, lane: LaneTask, *, lose: bool) -> None:
        self._lane = lane
        self._lose = lose
        self._connection = Connection(lane.settings, lane.place)
        self._consumer: Consumer | None = None
        self._at: tuple[int, int] | None = None
        self._ahead: list[Message] = []
        self._end_told = False

    def read(self, partition: int, start: int, end: int) -> Iterator[Found]:
        """Give the records of [start, end), in parts of bounded size; together they reach `end`.

        Raises RefusedError when retention took records of it (unless they may be lost), TransientError when
        the brokers fall silent.
        """
        one, begun, lost = Fetched(partition, start, start), start, 0
        by_header = self._lane.settings.record_time == "header"
        messages = self._begin(partition, start)
        silent_since = time.monotonic()
        while True:
            good = [message for message in messages if message.error() is None]
            self._ahead = [message for message in good if message.offset() >= end]
            mine = [message for message in good if message.offset() < end]
            if mine:
                one.add(mine, by_header=by_header)
            kept = self._noted(one, messages, end)
            if self._ahead:
                one.next = end
            if one.bytes >= _CHUNK_BYTES_MAX:
                yield self._part(one, begun, lost)
                one, begun, lost = Fetched(partition, one.next, one.next, reached=one.reached), one.next, 0
            if kept > one.next:
                lost += kept - one.next
                one.next = kept
                messages = self._begin(partition, kept) if kept < end else []
                continue
            if one.next >= end:
                break
            if messages:
                silent_since = time.monotonic()
            elif time.monotonic() - silent_since > _SILENCE_S_MAX:
                raise self._connection.not_ready()
            messages = self._poll()
        self._at = None if self._end_told else (partition, end)
        yield self._part(one, begun, lost)

    def _noted(self, one: Fetched, messages: list[Message], end: int) -> int:
        """Take note of what is no record; return where the partition begins when that is ahead, else 0."""
        kept = 0
        for message in messages:
            error = message.error()
            if error is None:
                continue
            if error.code() == KafkaError._PARTITION_EOF:
                one.next = max(one.next, min(end, message.offset()))
                # The client tells an end once: a range that goes on from here must ask anew.
                self._end_told = message.offset() > end
            elif error.code() == KafkaError._AUTO_OFFSET_RESET:
                kept = self._kept(one.partition, one.next, end)
            elif error.fatal() or not error.retriable():
                raise self._connection.error_of(error)
        return kept

    def _part(self, one: Fetched, start: int, lost: int) -> Found:
        one.at_end = True
        records, counts = take([one], rows_max=max(one.rows, 1), bytes_max=max(one.bytes, 1))
        gaps = one.next - start - lost - counts.get(one.partition, 0)
        return Found(records, start, one.next, gaps, lost)

    def _begin(self, partition: int, start: int) -> list[Message]:
        """Go to `start`; what was fetched beyond the range before is used when this one follows it."""
        if self._consumer is None:
            client = self._lane.settings.client
            self._consumer = self._connection.made(
                Consumer,
                **{
                    "group.id": self._lane.settings.group_name,
                    "enable.auto.commit": False,
                    "enable.auto.offset.store": False,
                    "auto.offset.reset": "error",
                    "enable.partition.eof": True,
                    "isolation.level": "read_committed",
                    "fetch.queue.backoff.ms": 2,
                    "fetch.wait.max.ms": client.get("fetch.wait.max.ms", 100),
                    "queued.max.messages.kbytes": client.get("queued.max.messages.kbytes", 16_384),
                    "allow.auto.create.topics": False,
                },
            )
        ahead, self._ahead = self._ahead, []
        self._end_told = False
        if self._at == (partition, start):
            self._at = None
            return ahead or self._poll()
        self._at = None
        self._consumer.assign([TopicPartition(self._lane.settings.topic, partition, start)])
        return self._poll()

    def _poll(self) -> list[Message]:
        assert self._consumer is not None  # noqa: S101 - `_begin` came before
        # `consume` waits until it has all that was asked for: the first message is waited for alone.
        first = self._consumer.poll(_WAIT_S)
        if first is None:
            self._connection.raise_refused()
            return []
        self._connection.answered()
        return [first, *self._consumer.consume(_CHUNK, 0)]

    def _kept(self, partition: int, at: int, end: int) -> int:
        """Return where the partition begins now, which is behind `at`."""
        assert self._consumer is not None  # noqa: S101 - the caller reads
        place = TopicPartition(self._lane.settings.topic, partition)
        try:
            start, last = self._consumer.get_watermark_offsets(place, timeout=10.0)
        except KafkaException as error:
            raise self._connection.error_of(error.args[0]) from None
        if at > last:
            raise IntegrityError(
                f"{self._lane.place}, partition {partition}: reading stands at offset {at}, beyond the log's "
                f"end {last}",
                fix="the log lost records or is another one: restore it, or start with a new store",
            )
        if start <= at or not self._lose:
            raise RefusedError(
                f"{self._lane.place}, partition {partition}: reading stands at offset {at}, but the "
                f"topic begins at {start}: retention deleted records",
                fix='set engine_settings.on_data_loss = "continue" to go on without them, or bring them back',
            )
        return min(int(start), end)

    def close(self) -> None:
        """Give back the connection."""
        if self._consumer is not None:
            self._consumer.close()
            self._consumer = None
