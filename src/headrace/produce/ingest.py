"""Takes records from requests and appends them; how the requests come in is the `web/` room's business.

Each stream has one thread that appends (`ingest_writer`), and a request is answered when its records are
durable. One with a key is appended once (`ingest_keys`); what waits is bounded (`ingest_limits`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pyarrow as pa

from headrace.declare.words import did_you_mean
from headrace.log.protocol import Log
from headrace.produce.ingest_answer import IngestAnswer
from headrace.produce.ingest_body import RefusedRequest
from headrace.produce.ingest_keys import content_of
from headrace.produce.ingest_limits import Admitted, IngestLimits, Waiting
from headrace.produce.ingest_writer import Request, StreamWriter

if TYPE_CHECKING:
    from headrace.log.answered import AnsweredKeys

__all__ = ["Admitted", "Ingest", "IngestAnswer", "IngestLimits"]


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
            name: StreamWriter(log, answered, self.limits.behind_records_max, reader)
            for name, log in logs.items()
        }
        self._waiting = Waiting(self.limits)
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
            content = content_of(idempotency_key, values, keys)
        request = Request(values, keys, idempotency_key, content, Future())
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
