"""Appends what requests bring to one stream, and answers them when their records are durable.

What waits while an append is on its way to the disk goes into the next one together, so many small requests
cost few appends (group commit).
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from headrace.errors import HeadraceError, RefusedError, TransientError
from headrace.log.partitioner import partitions_of
from headrace.log.protocol import APPEND_SCHEMA, Appended, Log, LogFullError, RecordTooLargeError
from headrace.produce.ingest_answer import IngestAnswer, bounds_of
from headrace.produce.ingest_body import RefusedRequest
from headrace.produce.ingest_keys import KeyedRequests, Placed, headers_of

if TYPE_CHECKING:
    from headrace.log.answered import AnsweredKeys

__all__ = ["Request", "StreamWriter"]

_BATCH_BYTES_MAX = 8 * 1024 * 1024
_ASKED_EVERY_S = 1.0
_RETRY_S = 5


@dataclass
class Request:
    """One request that waits; `content` is a hash of what came with `key`, which may be None."""

    values: list[bytes]
    keys: pa.Array | None
    key: str | None
    content: bytes
    future: Future[IngestAnswer]
    placed: Placed = field(default_factory=dict)

    @property
    def size(self) -> int:
        """How many bytes its values take."""
        return sum(map(len, self.values))


class StreamWriter:
    """Appends to one stream, in a thread of its own."""

    def __init__(self, log: Log, answered: AnsweredKeys, behind_max: int | None, reader: str) -> None:
        self.log = log
        self.queue: queue.Queue[Request | None] = queue.Queue()
        self._keys = KeyedRequests(log, answered)
        self._behind_max = behind_max
        self._reader = reader
        self._partitions = 0
        self._ends: dict[int, int] = {}
        self._behind = 0
        self._asked = float("-inf")
        self._turn = 0
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

    def _next_batch(self) -> list[Request]:
        batch: list[Request] = []
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

    def _serve(self, batch: Sequence[Request]) -> None:
        wanted: dict[str, Request] = {}
        again: list[Request] = []
        due: list[Request] = []
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
                retry_after=_RETRY_S,
            )

    def _known(self, request: Request) -> bool:
        """Answer a request whose key is known; else return False, with what is there of it already."""
        assert request.key is not None  # noqa: S101 - the caller looked
        try:
            found = self._keys.find(request.key, request.content, len(request.values))
        except RefusedRequest as refusal:
            _fail([request], refusal)
            return True
        if isinstance(found, IngestAnswer):
            request.future.set_result(found)
            return True
        request.placed = found
        return False

    def _append(self, due: Sequence[Request]) -> None:
        keyed = [(each.key, each.content) for each in due if each.key is not None and not each.placed]
        if keyed:
            # Ends that are a second old will do: the records cannot lie before them.
            self._keys.begin(keyed, self._ends)
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
            self._keys.append_failed()
            _fail(due, _refusal(error))
        else:
            self._answer(due, tables, appended)

    def _table(self, request: Request) -> pa.Table:
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
        headers = pa.nulls(len(rows), APPEND_SCHEMA.field("headers").type)
        if request.key is not None:
            headers = headers_of(request.key, rows)
        times = pa.nulls(len(rows), APPEND_SCHEMA.field("record_time").type)
        columns = [pa.array(partitions), times, keys, pa.array(values, pa.binary()), headers]
        return pa.Table.from_arrays(columns, schema=APPEND_SCHEMA)

    def _answer(self, due: Sequence[Request], tables: Sequence[pa.Table], appended: Appended) -> None:
        counts = [np.bincount(table.column("partition").to_numpy()) for table in tables]
        totals = {p: sum(int(each[p]) for each in counts if p < len(each)) for p in appended.offsets}
        following = {partition: first for partition, (first, _) in appended.offsets.items()}
        answers: list[IngestAnswer] = []
        for request, count in zip(due, counts, strict=True):
            offsets = dict(bounds_of(request.placed.values()))
            for partition in map(int, np.flatnonzero(count)):
                first, next_ = appended.offsets[partition]
                if next_ - first == totals[partition]:  # nobody else wrote in between
                    first, next_ = following[partition], following[partition] + int(count[partition])
                    following[partition] = next_
                before = offsets.get(partition, (first, next_))
                offsets[partition] = (min(before[0], first), max(before[1], next_))
            answers.append(IngestAnswer(self.log.stream, len(request.values), offsets))
        noted = {
            request.key: answer
            for request, answer in zip(due, answers, strict=True)
            if request.key is not None
        }
        if noted:
            self._keys.finish(noted)
        for request, answer in zip(due, answers, strict=True):
            request.future.set_result(answer)


def _refusal(error: HeadraceError) -> RefusedRequest:
    """Return what a sender is told of an error of the log: whether and when to try again."""
    if isinstance(error, RefusedRequest):
        return error
    if isinstance(error, LogFullError):
        status, what, after = 429, "the log is full", _RETRY_S
    elif isinstance(error, TransientError):
        status, what, after = 503, "the log is not ready", _RETRY_S
    elif isinstance(error, RecordTooLargeError):
        fix = "send it with less in it, or let the log take larger records"
        return RefusedRequest(413, "a record is larger than the log takes", fix=fix)
    else:
        status, what, after = 503, "the log refused the records", None
    refusal = RefusedRequest(status, what, fix="see what the ingest process says", retry_after=after)
    refusal.__cause__ = error
    return refusal


def _fail(requests: Sequence[Request], error: BaseException) -> None:
    for request in requests:
        if not request.future.done():
            request.future.set_exception(error)
