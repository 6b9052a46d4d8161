"""What an ingest takes at most, and how much of it waits to be appended at a moment."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from headrace.produce.ingest_body import RefusedRequest

__all__ = ["Admitted", "IngestLimits", "Waiting"]

_RETRY_S = 1


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


class Admitted:
    """What one request holds in memory, as part of all that wait."""

    def __init__(self, waiting: Waiting) -> None:
        self._waiting = waiting
        self._size = 0

    def holds(self, size: int) -> None:
        """Say how many bytes it holds from now on. Raises RefusedRequest (429) when too much waits then."""
        self._waiting.change(self._size, size)
        self._size = size


class Waiting:
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
    return RefusedRequest(429, "too much waits to be appended", fix="send it again", retry_after=_RETRY_S)
