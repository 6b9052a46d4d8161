"""Takes records from requests and appends them; how the requests come in is the `web/` room's business.

Each stream has one thread that appends. What waits while an append is on its way to the disk goes into the
next one together, so many small requests cost few appends (group commit). A request is answered when its
records are durable.

A request with a key is appended once: before the append its key is noted with the ends of the log, and its
records carry the key and their number in a header. After a crash the log is searched behind those ends, so
that neither a crash before the append nor one after it makes a difference.
"""

from __future__ import annotations

import hashlib
import math
import queue
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from headrace.declare.words import did_you_mean
from headrace.errors import HeadraceError, RefusedError, TransientError
from headrace.log.between import clamped, read_between
from headrace.log.partitioner import partitions_of
from headrace.log.protocol import (
    APPEND_SCHEMA,
    Appended,
    Log,
    LogFullError,
    RecordTooLargeError,
    settles_after,
)
from headrace.produce.ingest_body import RefusedRequest

if TYPE_CHECKING:
    from headrace.log.answered import AnsweredKeys

__all__ = ["KEYS_KEPT", "KEYS_MAX", "REQUEST_HEADER", "Admitted", "Ingest", "IngestAnswer", "IngestLimits"]

REQUEST_HEADER = "headrace.request"
"""Header of a record that came with an idempotency key: `KEY#NUMBER`, its number in the request."""

KEYS_KEPT = timedelta(hours=24)
KEYS_MAX = 1_000_000
"""How long an idempotency key is remembered, and how many of them: then the oldest are forgotten."""

_KEY_CHARACTERS_MAX = 255
_BATCH_BYTES_MAX = 8 * 1024 * 1024
_ASKED_EVERY_S = 1.0
_RETRY_SOON_S, _RETRY_LATER_S = 1, 5


@dataclass(frozen=True)
class IngestLimits:
    """What is taken at most; everything beyond is refused with a status that says so.

    waiting_requests_max, waiting_bytes_max   requests that are not answered yet, over all streams; the bytes
        are those that they hold in memory, so without compression. One that waits alone is always taken
    behind_records_max   how many records the slowest reader of a stream may be behind; None: any number
    """

    body_bytes_max: int = 8 * 1024 * 1024
    record_bytes_max: int = 1_000_000
    records_max: int = 50_000
    waiting_requests_max: int = 512
    waiting_bytes_max: int = 64 * 1024 * 1024
    behind_records_max: int | None = None


@dataclass(frozen=True)
class IngestAnswer:
    """What became of a request: offsets per partition, first and next. `repeated`: it was appended before.

    Where other writers append to the same Kafka partition at that moment, the offsets of a request are a
    range in which its records lie; else they are exactly its records.
    """

    stream: str
    records: int
    offsets: Mapping[int, tuple[int, int]]
    repeated: bool = False

    def to_json(self) -> dict[str, Any]:
        """Return the answer as plain values."""
        places = sorted(self.offsets.items())
        return {
            "stream": self.stream,
            "records": self.records,
            "partitions": [{"partition": p, "first": first, "next": next_} for p, (first, next_) in places],
        }


@dataclass
class _Request:
    values: list[bytes]
    keys: pa.Array | None
    key: str | None
    content: bytes
    future: Future[IngestAnswer]
    placed: dict[int, tuple[int, int]] = field(default_factory=dict)
    """Records that an attempt before a crash has appended already: number -> (partition, offset)."""

    @property
    def size(self) -> int:
        return sum(map(len, self.values))


class Admitted:
    """What one request holds in memory, as part of all that wait."""

    def __init__(self, waiting: _Waiting) -> None:
        self._waiting = waiting
        self._size = 0

    def holds(self, size: int) -> None:
        """Say how many bytes it holds from now on. Raises RefusedRequest (429) when too much waits then."""
        self._waiting.change(self._size, size)
        self._size = size


class _Waiting:
    """Counts the requests that are not answered yet, and what they hold."""

    def __init__(self, limits: IngestLimits) -> None:
        self._limits = limits
        self._lock = threading.Lock()
        self._requests = 0
        self._bytes = 0

    @contextmanager
    def one_more(self) -> Iterator[Admitted]:
        """Count a request that holds nothing yet. Raises RefusedRequest (429) when too many wait."""
        with self._lock:
            if self._requests >= self._limits.waiting_requests_max:
                raise _too_much_waits()
            self._requests += 1
        admitted = Admitted(self)
        try:
            yield admitted
        finally:
            admitted.holds(0)
            with self._lock:
                self._requests -= 1

    def change(self, before: int, size: int) -> None:
        """Count `size` bytes in place of `before`. Raises RefusedRequest (429), and counts as before then."""
        with self._lock:
            others = self._bytes - before
            # What waits alone is bounded by the limit of a body, and refused it would be refused for ever.
            if size > before and others and others + size > self._limits.waiting_bytes_max:
                raise _too_much_waits()
            self._bytes = others + size


def _too_much_waits() -> RefusedRequest:
    return RefusedRequest(
        429, "too much waits to be appended", fix="send it again", retry_after=_RETRY_SOON_S
    )


class Ingest:
    """Takes requests for several streams. `close` answers what was taken and gives back nothing else."""

    def __init__(
        self,
        logs: Mapping[str, Log],
        *,
        answered: AnsweredKeys,
        limits: IngestLimits | None = None,
        reader: str = "engine",
    ) -> None:
        self.limits = limits or IngestLimits()
        self._writers = {
            name: _StreamWriter(log, answered, self.limits.behind_records_max, reader)
            for name, log in logs.items()
        }
        self._waiting = _Waiting(self.limits)
        self._closed = False

    def require_stream(self, name: str) -> None:
        """Raise RefusedRequest (404) for a stream that is not taken here."""
        if name not in self._writers:
            raise RefusedRequest(
                404,
                f"there is no stream '{name[:80]}'{did_you_mean(name, self._writers)}",
                fix="there are: " + ", ".join(self._writers),
            )

    @contextmanager
    def admitted(self, size: int) -> Iterator[Admitted]:
        """Count a request of so many bytes as waiting. Raises RefusedRequest (429) when too much waits."""
        with self._waiting.one_more() as admitted:
            admitted.holds(size)
            yield admitted

    def submit(
        self, stream: str, values: list[bytes], keys: pa.Array | None, *, idempotency_key: str | None
    ) -> Future[IngestAnswer]:
        """Append the records of one request: all of them or, when the future raises RefusedRequest, none.

        With 503 it is not known whether: the same request with the same idempotency key finds out.
        """
        self.require_stream(stream)
        if self._closed:
            raise RefusedRequest(503, "the process is stopping", fix="send it again", retry_after=5)
        content = b""
        if idempotency_key is not None:
            content = _content_of(idempotency_key, values, keys)
        request = _Request(values, keys, idempotency_key, content, Future())
        self._writers[stream].queue.put(request)
        return request.future

    def check(self) -> None:
        """Ask every log for its ends. Raises what the log raises when it is not ready."""
        for writer in self._writers.values():
            writer.log.partitions()

    def close(self) -> None:
        """Answer what was taken, then end the threads."""
        self._closed = True
        for writer in self._writers.values():
            writer.queue.put(None)
        for writer in self._writers.values():
            writer.thread.join()


def _content_of(key: str, values: list[bytes], keys: pa.Array | None) -> bytes:
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


class _StreamWriter:
    """Appends to one stream, in a thread of its own."""

    def __init__(self, log: Log, answered: AnsweredKeys, behind_max: int | None, reader: str) -> None:
        self.log = log
        self.queue: queue.Queue[_Request | None] = queue.Queue()
        self._answered = answered
        self._behind_max = behind_max
        self._reader = reader
        self._partitions = 0
        self._ends: dict[int, int] = {}
        self._behind = 0
        self._asked = float("-inf")
        self._turn = 0
        self._failed_us = _now_us()  # the process before this one may have died in an append
        self._ended = False
        self.thread = threading.Thread(target=self._work, name=f"headrace-ingest-{log.stream}", daemon=True)
        self.thread.start()

    def _work(self) -> None:
        while not self._ended:
            # What nobody waits for any more is not begun: its sender went away.
            batch = [each for each in self._next_batch() if each.future.set_running_or_notify_cancel()]
            try:
                self._serve(batch)
            except HeadraceError as error:
                _fail(batch, _refusal(error))
            except BaseException as error:  # noqa: BLE001 - a bug must not leave senders without an answer
                _fail(batch, error)

    def _next_batch(self) -> list[_Request]:
        batch: list[_Request] = []
        size = 0
        while size < _BATCH_BYTES_MAX:
            try:
                request = self.queue.get(block=not batch)
            except queue.Empty:
                break
            if request is None:
                self._ended = True
                break
            batch.append(request)
            size += request.size
        return batch

    def _serve(self, batch: Sequence[_Request]) -> None:
        wanted: dict[str, _Request] = {}
        again: list[_Request] = []
        due: list[_Request] = []
        for request in batch:
            if request.key is None:
                due.append(request)
            elif request.key in wanted:
                again.append(request)  # the same key twice in one batch: after the first was answered
            else:
                wanted[request.key] = request
        due += [request for request in wanted.values() if not self._known(request)]
        if due:
            self._look()
            self._append(due)
        if again:
            self._serve(again)

    def _look(self) -> None:
        """Ask the log, at most once a second, for its partitions and how far its reader is behind."""
        if time.monotonic() - self._asked >= _ASKED_EVERY_S:
            ranges = self.log.partitions()
            self._partitions = len(ranges)
            self._ends = {each.partition: each.end for each in ranges}
            if self._behind_max is not None:
                read = self.log.readers(self._reader).get(self._reader, {})
                self._behind = sum(p.unread(max(read.get(p.partition, 0), p.start)) for p in ranges)
            self._asked = time.monotonic()
        if self._behind_max is not None and self._behind > self._behind_max:
            raise RefusedRequest(
                429,
                f"the pipeline is {self._behind:,} records behind; at most {self._behind_max:,} are allowed",
                fix="send it again later",
                retry_after=_RETRY_LATER_S,
            )

    def _known(self, request: _Request) -> bool:
        """Answer a request whose key is known; else return False, with what is there of it already."""
        assert request.key is not None  # noqa: S101 - the caller looked
        known = self._answered.find(self.log.stream, request.key, _now_us())
        if known is None:
            return False
        if known.content != request.content:
            _fail(
                [request],
                RefusedRequest(
                    422, "this idempotency key came with other records before", fix="use a new key"
                ),
            )
            return True
        if known.answer is not None:
            offsets = {p["partition"]: (p["first"], p["next"]) for p in known.answer["partitions"]}
            answer = IngestAnswer(self.log.stream, known.answer["records"], offsets, repeated=True)
            request.future.set_result(answer)
            return True
        if (refusal := self._unsettled(known.begun_us)) is not None:
            _fail([request], refusal)
            return True
        request.placed = self._search(request.key, known.ends)
        if len(request.placed) < len(request.values):
            return False
        answer = IngestAnswer(self.log.stream, len(request.values), _bounds(request.placed.values()), True)
        self._answered.finish(self.log.stream, {request.key: answer.to_json()})
        request.future.set_result(answer)
        return True

    def _unsettled(self, begun_us: int) -> RefusedRequest | None:
        """Return the refusal while records of an attempt that failed may be there and not be seen."""
        since_us = max(begun_us, self._failed_us)
        left = settles_after(self.log).total_seconds() - (_now_us() - since_us) / 1e6
        if left <= 0:
            return None
        return RefusedRequest(
            503,
            "it is not known yet whether the log has these records",
            fix="send it again with the same idempotency key",
            retry_after=math.ceil(left),
        )

    def _search(self, key: str, ends: Mapping[int, int]) -> dict[int, tuple[int, int]]:
        """Return where the records of a request lie that was begun when the log had these ends."""
        found: dict[int, tuple[int, int]] = {}
        ranges = self.log.partitions()
        starts = clamped({each.partition: ends.get(each.partition, 0) for each in ranges}, ranges)
        wanted = key.encode()
        for records in read_between(self.log, starts, {each.partition: each.end for each in ranges}):
            columns = (records.column(name).to_pylist() for name in ("partition", "offset", "headers"))
            for partition, offset, headers in zip(*columns, strict=True):
                for header in headers or ():
                    if header["key"] == REQUEST_HEADER:
                        request, _, number = (header["value"] or b"").rpartition(b"#")
                        if request == wanted and number.isdigit():
                            found.setdefault(int(number), (partition, offset))
        return found

    def _append(self, due: Sequence[_Request]) -> None:
        keyed = [(each.key, each.content) for each in due if each.key is not None and not each.placed]
        if keyed:
            # Ends that are a second old will do: the records cannot lie before them.
            self._answered.begin(self.log.stream, keyed, self._ends, _now_us())
        tables = [self._table(each) for each in due]
        try:
            appended = self.log.append(pa.concat_tables(tables))
        except LogFullError as error:
            _fail(due, _refusal(error))
        except RefusedError as error:
            if len(due) == 1:
                _fail(due, _refusal(error))
                return
            for request in due:  # one that the log refuses must not take the others with it
                self._append([request])
        except HeadraceError as error:
            self._failed_us = _now_us()
            _fail(due, _refusal(error))
        else:
            self._answer(due, tables, appended)

    def _table(self, request: _Request) -> pa.Table:
        rows = [number for number in range(len(request.values)) if number not in request.placed]
        values = [request.values[number] for number in rows]
        partitions = np.full(len(rows), self._turn % self._partitions, np.int32)
        self._turn += 1
        keys = pa.nulls(len(rows), pa.binary())
        if request.keys is not None:
            keys = request.keys if len(rows) == len(request.keys) else request.keys.take(pa.array(rows))
            given = keys.is_valid().to_numpy(zero_copy_only=False)
            if given.any():
                partitions[given] = partitions_of(keys.drop_null(), self._partitions)
        kind = APPEND_SCHEMA.field("headers").type
        headers = pa.nulls(len(rows), kind)
        if request.key is not None:
            marks = [f"{request.key}#{number}".encode() for number in rows]
            headers = pa.array([[{"key": REQUEST_HEADER, "value": mark}] for mark in marks], kind)
        times = pa.nulls(len(rows), APPEND_SCHEMA.field("record_time").type)
        columns = [pa.array(partitions), times, keys, pa.array(values, pa.binary()), headers]
        return pa.Table.from_arrays(columns, schema=APPEND_SCHEMA)

    def _answer(self, due: Sequence[_Request], tables: Sequence[pa.Table], appended: Appended) -> None:
        counts = [np.bincount(table.column("partition").to_numpy()) for table in tables]
        totals = {p: sum(int(each[p]) for each in counts if p < len(each)) for p in appended.offsets}
        following = {partition: first for partition, (first, _) in appended.offsets.items()}
        answers: list[IngestAnswer] = []
        for request, count in zip(due, counts, strict=True):
            offsets = dict(_bounds(request.placed.values()))
            for partition in map(int, np.flatnonzero(count)):
                first, next_ = appended.offsets[partition]
                if next_ - first == totals[partition]:  # nobody else wrote in between
                    first, next_ = following[partition], following[partition] + int(count[partition])
                    following[partition] = next_
                before = offsets.get(partition, (first, next_))
                offsets[partition] = (min(before[0], first), max(before[1], next_))
            answers.append(IngestAnswer(self.log.stream, len(request.values), offsets))
        noted = {
            request.key: answer.to_json()
            for request, answer in zip(due, answers, strict=True)
            if request.key is not None
        }
        if noted:
            self._answered.finish(self.log.stream, noted)
        for request, answer in zip(due, answers, strict=True):
            request.future.set_result(answer)


def _bounds(places: Any) -> dict[int, tuple[int, int]]:
    offsets: dict[int, tuple[int, int]] = {}
    for partition, offset in places:
        first, next_ = offsets.get(partition, (offset, offset + 1))
        offsets[partition] = (min(first, offset), max(next_, offset + 1))
    return offsets


def _refusal(error: HeadraceError) -> RefusedRequest:
    """Return what a sender is told of an error of the log: whether and when to try again."""
    if isinstance(error, RefusedRequest):
        return error
    if isinstance(error, LogFullError):
        status, what, after = 429, "the log is full", _RETRY_LATER_S
    elif isinstance(error, TransientError):
        status, what, after = 503, "the log is not ready", _RETRY_LATER_S
    elif isinstance(error, RecordTooLargeError):
        fix = "send it with less in it, or let the log take larger records"
        return RefusedRequest(413, "a record is larger than the log takes", fix=fix)
    else:
        status, what, after = 503, "the log refused the records", None
    refusal = RefusedRequest(status, what, fix="see what the ingest process says", retry_after=after)
    refusal.__cause__ = error
    return refusal


def _fail(requests: Sequence[_Request], error: BaseException) -> None:
    for request in requests:
        if not request.future.done():
            request.future.set_exception(error)


def _now_us() -> int:
    return time.time_ns() // 1000
