"""Writes records to a topic; a call returns when every one is on the brokers as `acks=all` means it."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from confluent_kafka import KafkaError, KafkaException, Producer

from headrace.errors import HeadraceError, TransientError
from headrace.log.headers import RECORD_TIME_HEADER
from headrace.log.kafka.connection import TOO_LARGE_FIX, Connection, callbacks
from headrace.log.placing import Placing
from headrace.log.protocol import Appended, RecordTooLargeError

__all__ = ["KafkaAppender"]

_BATCH = 5_000
_WAITING_MAX = 50_000
_WAITING_BYTES_MAX = 32 * 1024 * 1024
_DELIVERY_MS = 30_000
_GIVE_UP_S_MAX = 1.0
_REPORT_S = 0.5
_OVERHEAD_BYTES = 128
"""What a batch of one record adds to its value, key and headers, at most."""
_HEADER_BYTES = 10
"""What a header adds to its name and value, at most."""
_MESSAGE_BYTES_MIN = 1_000
"""librdkafka's least limit; records were measured before."""


@dataclass
class _Delivery:
    """What brokers said of the records of one append."""

    offsets: dict[int, tuple[int, int]] = field(default_factory=dict)
    error: KafkaError | None = None
    records: int = 0

    def note(self, error: KafkaError | None, message: Any) -> None:
        if error is not None:
            self.error = self.error or error
            return
        self.records += 1
        partition, offset = message.partition(), message.offset()
        first, end = self.offsets.get(partition, (offset, offset))
        self.offsets[partition] = min(first, offset), max(end, offset + 1)


class KafkaAppender:
    """Appends to one topic, which takes records of `topic_bytes_max`. Used by one thread at a time."""

    def __init__(self, connection: Connection, topic_bytes_max: int) -> None:
        self._connection = connection
        self._topic = connection.settings.topic
        self._placing = Placing(connection.place)
        self._size_max = min(connection.settings.record_bytes_max or topic_bytes_max, topic_bytes_max)
        self._delivery_ms = int(connection.settings.client.get("delivery.timeout.ms", _DELIVERY_MS))
        self._made: Producer | None = None
        self._delivery = _Delivery()

    @property
    def _producer(self) -> Producer:
        if self._made is None:
            settings = self._connection.settings
            self._made = self._connection.made(
                Producer,
                **{
                    "acks": "all",
                    "enable.idempotence": True,
                    # What was written of an append is a prefix of each partition, never one with a hole.
                    "enable.gapless.guarantee": True,
                    "linger.ms": settings.client.get("linger.ms", 5),
                    # The topic's limit is on whole batches: a full one must not be larger than it.
                    "batch.size": min(int(settings.client.get("batch.size", 1_000_000)), self._size_max),
                    "compression.type": settings.compression or "lz4",
                    "delivery.timeout.ms": self._delivery_ms,
                    "message.max.bytes": max(self._size_max, _MESSAGE_BYTES_MIN),
                    "queue.buffering.max.messages": 2 * _WAITING_MAX + _BATCH,
                    "queue.buffering.max.kbytes": 1_048_576,
                },
            )
        return self._made

    def append(self, records: pa.Table, partitions: int, times: pa.ChunkedArray | None) -> Appended:
        """Append `records`; `times` are their record times, which go into a header.

        Raises RecordTooLargeError before anything is sent for a record that is, TransientError when not
        all could be delivered: it says how many were acknowledged. What a producer sends again by itself is
        written once, by the number that it has in the producer's sequence. After this error that sequence is
        over: those records, and others of which no word came, may be in the topic, and a caller that tries
        again writes them twice (at-least-once; a stream with `unique` finds the copies).
        """
        records = self._placing.append_table(records)
        if not records.num_rows:
            return Appended({})
        self._require_sizes(records, times=times is not None)
        targets = self._placing.targets(records.column("partition"), records.column("key"), partitions)
        delivery = self._delivery = _Delivery()
        try:
            self._send_all(records, targets, times)
        except HeadraceError as error:
            self._give_up()
            # What is refused was not written, to whoever calls; what is written in part may be tried again.
            kind = TransientError if delivery.records else type(error)
            raise kind(
                f"{error.message} ({delivery.records:,} of {records.num_rows:,} records were acknowledged)",
                fix=error.fix,
            ) from None
        return Appended(dict(sorted(delivery.offsets.items())))

    def _send_all(self, records: pa.Table, targets: np.ndarray, times: pa.ChunkedArray | None) -> None:
        waiting = 0
        for partition in np.unique(targets).tolist():
            mine = np.flatnonzero(targets == partition)
            for at in range(0, len(mine), _BATCH):
                rows = pa.array(mine[at : at + _BATCH])
                some = records.take(rows)
                messages = _messages(some, None if times is None else times.take(rows))
                waiting += some.nbytes
                self._send(partition, messages)
                self._wait(_WAITING_MAX if waiting < _WAITING_BYTES_MAX else 0)
                waiting = waiting if waiting < _WAITING_BYTES_MAX else 0
        self._wait(0)

    def _require_sizes(self, records: pa.Table, *, times: bool) -> None:
        sizes = np.zeros(records.num_rows, np.int64)
        for name in ("value", "key"):
            lengths = pc.fill_null(pc.binary_length(records.column(name)), 0)
            sizes += lengths.to_numpy().astype(np.int64)
        headers = records.column("headers")
        if headers.null_count < len(headers):
            for row, each in enumerate(headers.to_pylist()):
                for header in each or ():
                    sizes[row] += len(header["key"].encode()) + len(header["value"] or b"") + _HEADER_BYTES
        overhead = _OVERHEAD_BYTES + (len(RECORD_TIME_HEADER) + 20 + _HEADER_BYTES if times else 0)
        largest = int(sizes.max()) + overhead
        if largest > self._size_max:
            raise RecordTooLargeError(
                f"{self._connection.place}: a record of {largest:,} bytes, with its key and headers; "
                f"record_bytes_max is {self._size_max:,}; nothing was written",
                fix=TOO_LARGE_FIX,
            )

    def _send(self, partition: int, messages: list[dict[str, Any]]) -> None:
        if not any("headers" in each for each in messages):
            # Its answer counts what was taken; what was not carries the reason.
            taken = self._producer.produce_batch(
                self._topic, messages, partition=partition, on_delivery=self._delivery.note
            )
            if taken < len(messages):
                self._delivery.error = next(each["_error"] for each in messages if "_error" in each)
            return
        for each in messages:
            try:
                self._producer.produce(
                    self._topic, partition=partition, on_delivery=self._delivery.note, **each
                )
            except KafkaException as error:
                self._delivery.error = error.args[0]
                return

    def _wait(self, most: int) -> None:
        """Wait until at most so many records are on their way. Raises what became of one that failed."""
        end = time.monotonic() + 2 * self._delivery_ms / 1000
        # After a failure nothing more is sent: what waits is dropped, what is on its way is waited for.
        dropped = False
        while len(self._producer) > (most if self._delivery.error is None else 0):
            if self._delivery.error is not None and not dropped:
                self._producer.purge(in_queue=True, in_flight=False, blocking=False)
                dropped = True
            # Who waits for all of them has no more to send: `flush` sends what lingers at once.
            self._serve(self._producer.poll if most else self._producer.flush, 0.05)
            self._connection.raise_refused()
            if time.monotonic() > end:
                raise TransientError(f"{self._connection.place}: no word about records that were sent")
        self._serve(self._producer.poll, 0)
        if self._delivery.error is not None:
            raise self._connection.error_of(self._delivery.error)

    def _serve(self, wait: Callable[[float], int], seconds: float) -> None:
        """Wait so long for something to be reported."""
        try:
            with callbacks():
                wait(seconds)
        except KafkaException as error:
            raise self._connection.error_of(self._cause(error.args[0])) from None

    def _cause(self, fatal: KafkaError) -> KafkaError:
        """Return why a producer ended: what brokers said of the record that they refused, if it was that."""
        if fatal.code() == KafkaError._GAPLESS_GUARANTEE and self._delivery.error is None:
            with suppress(KafkaException), callbacks():
                self._producer.poll(_REPORT_S)  # it is reported behind the fatal error
        return self._delivery.error or fatal

    def _give_up(self) -> None:
        """Drop the producer with what it has not sent: it must not go out behind the caller's back."""
        producer, self._made = self._made, None
        if producer is not None:
            producer.purge()
            producer.flush(_GIVE_UP_S_MAX)

    def close(self) -> None:
        """Give back the producer; nothing is on its way between two appends."""
        self._give_up()


def _messages(records: pa.Table, times: pa.ChunkedArray | None) -> list[dict[str, Any]]:
    """Return what the producer takes, with record times as a header."""
    values, keys = records.column("value").to_pylist(), records.column("key").to_pylist()
    messages: list[dict[str, Any]] = [
        {"value": value, "key": key} for value, key in zip(values, keys, strict=True)
    ]
    headers = records.column("headers")
    if headers.null_count < len(headers):
        for message, each in zip(messages, headers.to_pylist(), strict=True):
            if each is not None:
                message["headers"] = [(header["key"], header["value"]) for header in each]
    if times is not None:
        for message, micros in zip(messages, times.cast(pa.int64()).to_pylist(), strict=True):
            if micros is not None:
                given = [(k, v) for k, v in message.get("headers", []) if k != RECORD_TIME_HEADER]
                message["headers"] = [*given, (RECORD_TIME_HEADER, b"%d" % micros)]
    return messages
