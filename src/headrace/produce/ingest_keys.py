"""Requests with an idempotency key: each is appended once, however often it is sent.

Before the append its key is noted with the ends of the log, and its records carry the key and their number in
a header. After a crash the log is searched behind those ends, so that neither a crash before the append nor
one after it makes a difference.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from headrace.log.between import clamped, read_between
from headrace.log.protocol import APPEND_SCHEMA, Log, settles_after
from headrace.produce.ingest_answer import IngestAnswer, bounds_of
from headrace.produce.ingest_body import RefusedRequest

if TYPE_CHECKING:
    from headrace.log.answered import AnsweredKeys

__all__ = ["KEYS_KEPT", "KEYS_MAX", "REQUEST_HEADER", "KeyedRequests", "Placed", "content_of", "headers_of"]

REQUEST_HEADER = "headrace.request"
"""Header of a record that came with an idempotency key: `KEY#NUMBER`, its number in the request."""

KEYS_KEPT = timedelta(hours=24)
KEYS_MAX = 1_000_000
"""How long an idempotency key is remembered, and how many of them: then the oldest are forgotten."""

Placed = dict[int, tuple[int, int]]
"""Records that an attempt before a crash has appended already: number -> (partition, offset)."""

_KEY_CHARACTERS_MAX = 255


def content_of(key: str, values: list[bytes], keys: pa.Array | None) -> bytes:
    """Return a hash of what comes with a key. Raises RefusedRequest (400) for a key that cannot be one."""
    if not key or len(key) > _KEY_CHARACTERS_MAX or not key.isascii() or not key.isprintable():
        raise RefusedRequest(
            400,
            "the idempotency key is not 1 to 255 printable ASCII characters",
            fix="use for example a UUID, made once for each request and kept when it is sent again",
        )
    content = hashlib.sha256()
    for value in values:
        content.update(len(value).to_bytes(8))
        content.update(value)
    for part in keys.to_pylist() if keys is not None else ():
        content.update(b"-" if part is None else b"+" + len(part).to_bytes(8) + part)
    return content.digest()


def headers_of(key: str, numbers: Sequence[int]) -> pa.Array:
    """Return the headers by which records of a request are found again, by their numbers in it."""
    marks = [f"{key}#{number}".encode() for number in numbers]
    return pa.array(
        [[{"key": REQUEST_HEADER, "value": mark}] for mark in marks], APPEND_SCHEMA.field("headers").type
    )


class KeyedRequests:
    """What became of one stream's requests, by their keys; asked by the one thread that appends to it."""

    def __init__(self, log: Log, answered: AnsweredKeys) -> None:
        self._log = log
        self._answered = answered
        self._failed_us = _now_us()  # the process before this one may have died in an append

    def find(self, key: str, content: bytes, records: int) -> IngestAnswer | Placed:
        """Return the answer to a request that is known; else what is there of it already.

        Raises RefusedRequest: 422 when the key came with other content before, 503 while records of an
        attempt that failed may be there and not be seen.
        """
        known = self._answered.find(self._log.stream, key, _now_us())
        if known is None:
            return {}
        if known.content != content:
            raise RefusedRequest(
                422, "this idempotency key came with other records before", fix="use a new key"
            )
        if known.answer is not None:
            return IngestAnswer.repeating(self._log.stream, known.answer)
        self._require_settled(known.begun_us)
        placed = self._search(key, known.ends)
        if len(placed) < records:
            return placed
        answer = IngestAnswer(self._log.stream, records, bounds_of(placed.values()), repeated=True)
        self.finish({key: answer})
        return answer

    def begin(self, requests: Sequence[tuple[str, bytes]], ends: Mapping[int, int]) -> None:
        """Note keys and contents of what is about to be appended behind these ends of the log."""
        self._answered.begin(self._log.stream, requests, ends, _now_us())

    def finish(self, answers: Mapping[str, IngestAnswer]) -> None:
        """Note the answers to requests, by their keys."""
        noted: dict[str, Any] = {key: answer.to_json() for key, answer in answers.items()}
        self._answered.finish(self._log.stream, noted)

    def append_failed(self) -> None:
        """Say that an append failed now, of which it is not known what the log has."""
        self._failed_us = _now_us()

    def _require_settled(self, begun_us: int) -> None:
        since_us = max(begun_us, self._failed_us)
        left = settles_after(self._log).total_seconds() - (_now_us() - since_us) / 1e6
        if left > 0:
            raise RefusedRequest(
                503,
                "it is not known yet whether the log has these records",
                fix="send it again with the same idempotency key",
                retry_after=math.ceil(left),
            )

    def _search(self, key: str, ends: Mapping[int, int]) -> Placed:
        """Return where the records of a request lie that was begun when the log had these ends."""
        found: Placed = {}
        ranges = self._log.partitions()
        starts = clamped({each.partition: ends.get(each.partition, 0) for each in ranges}, ranges)
        wanted = key.encode()
        for records in read_between(self._log, starts, {each.partition: each.end for each in ranges}):
            columns = (records.column(name).to_pylist() for name in ("partition", "offset", "headers"))
            for partition, offset, headers in zip(*columns, strict=True):
                for header in headers or ():
                    if header["key"] == REQUEST_HEADER:
                        request, _, number = (header["value"] or b"").rpartition(b"#")
                        if request == wanted and number.isdigit():
                            found.setdefault(int(number), (partition, offset))
        return found


def _now_us() -> int:
    return time.time_ns() // 1000
