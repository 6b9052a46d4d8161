"""Writes records to a topic; a call returns when every one is on the brokers as `acks=all` means it."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from confluent_kafka import KafkaError, KafkaException, Producer

from headrace.errors import RefusedError, TransientError
from headrace.log.kafka.connection import TOO_LARGE_FIX, Connection
from headrace.log.placing import Placing
from headrace.log.protocol import Appended

__all__ = ["RECORD_TIME_HEADER", "KafkaAppender"]

RECORD_TIME_HEADER = "headrace.record-time"
"""Carries a record time in ASCII digits: microseconds since 1970, UTC."""

_BATCH = 5_000
_WAITING_MAX = 50_000
_WAITING_BYTES_MAX = 32 * 1024 * 1024
_DELIVERY_MS = 30_000
_RECORD_BYTES = 1_048_588
"""What a broker takes when nobody changed it (Kafka's message.max.bytes)."""


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
    """Appends to one topic. Used by one thread at a time."""

    def __init__(self, connection: Connection) -> None:
        settings = connection.settings
        self._connection = connection
        self._topic = settings.topic
        self._placing = Placing(connection.place)
        self._size_max = settings.record_bytes_max or _RECORD_BYTES
        self._producer: Producer = connection.made(
            Producer,
            **{
                "acks": "all",
                "enable.idempotence": True,
                "linger.ms": settings.client.get("linger.ms", 5),
                "batch.size": settings.client.get("batch.size", 1_000_000),
                "compression.type": settings.compression or "lz4",
                "delivery.timeout.ms": settings.client.get("delivery.timeout.ms", _DELIVERY_MS),
                "message.max.bytes": settings.client.get("message.max.bytes", self._size_max),
                "queue.buffering.max.messages": 2 * _WAITING_MAX + _BATCH,
                "queue.buffering.max.kbytes": 1_048_576,
            },
        )
        self._delivery = _Delivery()

    def append(self, records: pa.Table, partitions: int, times: pa.ChunkedArray | None) -> Appended:
        """Append `records`; `times` are their record times, which go into a header.

        Raises RefusedError before anything is sent for a record that is too large, TransientError when not
        all could be delivered: it says how many were. Those are in the topic, so a caller that tries again
        writes them twice (at-least-once; a stream with `unique` finds the copies).
        """
        records = self._placing.append_table(records)
        if not records.num_rows:
            return Appended({})
        self._require_sizes(records)
        targets = self._placing.targets(records.column("partition"), records.column("key"), partitions)
        delivery = self._delivery = _Delivery()
        waiting = 0
        for partition in np.unique(targets).tolist():
            mine = np.flatnonzero(targets == partition)
            for at in range(0, len(mine), _BATCH):
                rows = pa.array(mine[at : at + _BATCH])
                some = records.take(rows)
                messages = _messages(some, None if times is None else times.take(rows))
                waiting += some.column("value").nbytes
                self._send(partition, messages)
                self._wait(_WAITING_MAX if waiting < _WAITING_BYTES_MAX else 0)
                waiting = waiting if waiting < _WAITING_BYTES_MAX else 0
                if delivery.error is not None:
                    break
        self._wait(0)
        if delivery.error is not None:
            error = self._connection.error_of(delivery.error)
            raise type(error)(
                f"{error.args[0]} ({delivery.records:,} of {records.num_rows:,} records were written)",
                fix=error.fix,
            )
        return Appended(dict(sorted(delivery.offsets.items())))

    def _require_sizes(self, records: pa.Table) -> None:
        largest = pc.max(pc.binary_length(records.column("value"))).as_py() or 0
        if largest > self._size_max:
            raise RefusedError(
                f"{self._connection.place}: a record of {largest:,} bytes; "
                f"at most {self._size_max:,} are taken",
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
        """Wait until at most so many records are on their way."""
        end = time.monotonic() + 2 * _DELIVERY_MS / 1000
        while len(self._producer) > most:
            self._producer.poll(0.05)
            self._connection.raise_refused()
            if time.monotonic() > end:
                raise TransientError(f"{self._connection.place}: no word about records that were sent")
        self._producer.poll(0)

    def close(self) -> None:
        """Give back the producer; nothing is on its way between two appends."""
        self._producer.purge()
        self._producer.flush(1)


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
