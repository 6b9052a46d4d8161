"""`PageSources`: what the routes ask of a run, with what was asked a moment ago kept for the next one."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from headrace.errors import RefusedError
from headrace.operate.journal_reading import NewLines, Part, kept, last_lines
from headrace.web.page.live import Live
from headrace.web.page.values import columns_of, journal_line, rows_of

if TYPE_CHECKING:
    from headrace.observe import Sample
    from headrace.operate import Runtime

__all__ = ["QUERIES_MAX", "PageSources", "latencies_of"]

QUERIES_MAX = 2
"""Queries of pages that run at once: the store's memory is the engine's too."""

_STATUS_KEPT_S = 0.8
_FRESH_S = 0.1
"""What is told of itself, once a second, is not as old as what many pages may ask for."""
_QUEUE_S = 5.0
_LATENCIES = {"headrace_latency_seconds_count": "records", "headrace_latency_seconds_sum": "seconds"}


def latencies_of(samples: Iterable[Sample]) -> dict[str, dict[str, dict[str, float]]]:
    """Return the sums of latencies as `models.Status` has them."""
    found: dict[str, dict[str, dict[str, float]]] = {}
    for sample in samples:
        name = _LATENCIES.get(sample.name)
        if name is not None:
            stream = found.setdefault(sample.labels["stream"], {})
            stream.setdefault(sample.labels["since"], {})[name] = sample.value
    return found


class PageSources:
    """One run, as its page sees it. `live` is fed by the run; `close` ends it."""

    def __init__(self, runtime: Runtime) -> None:
        self.runtime = runtime
        self.started = datetime.now(UTC)
        self._lock = threading.Lock()
        self._kept: tuple[float, dict[str, Any]] | None = None
        self._slots = threading.BoundedSemaphore(QUERIES_MAX)
        self._lines = NewLines(runtime.project.journal_path)
        self.live = Live(lambda: self.status(kept_s=_FRESH_S), self._new_lines)

    def close(self) -> None:
        """End every stream of events."""
        self.live.close()
        self._lines.close()

    def _new_lines(self) -> list[dict[str, Any]]:
        return [journal_line(line) for line in self._lines.read()]

    def journal(
        self,
        *,
        level: str,
        text: str,
        limit: int,
        part: Part | None = None,
        between: tuple[datetime, datetime] | None = None,
    ) -> list[dict[str, Any]]:
        """Return the last lines of this level or worse that hold `text`, by part and time, oldest first."""
        keep = kept(level=level, text=text, part=part, between=between)
        found = last_lines(self.runtime.project.journal_path, limit, keep)
        return [journal_line(line) for line in found]

    def status(self, *, kept_s: float = _STATUS_KEPT_S) -> dict[str, Any]:
        """Return where everything stands, at most `kept_s` old however many pages ask."""
        with self._lock:
            if self._kept is None or time.monotonic() - self._kept[0] > kept_s:
                at = datetime.now(UTC).isoformat()
                facts = {
                    **self.runtime.answers.status(),
                    "latencies": latencies_of(self.runtime.observer.samples()),
                }
                self._kept = (time.monotonic(), {"at": at, **facts})
            return self._kept[1]

    def rows(self, sql: str, *, rows_max: int, seconds_max: float = 5.0) -> dict[str, Any]:
        """Return the rows of a reading query as `models.Rows` has them."""
        with self.slot():
            begun = time.perf_counter()
            table = self.runtime.answers.query(sql, rows_max=rows_max + 1, seconds_max=seconds_max)
            seconds = time.perf_counter() - begun
        return {
            "columns": columns_of(table),
            "rows": rows_of(table.slice(0, rows_max)),
            "cut": table.num_rows > rows_max,
            "seconds": round(seconds, 4),
        }

    @contextmanager
    def slot(self) -> Iterator[None]:
        """Be one of QUERIES_MAX that ask at once. Raises RefusedError when they stay busy."""
        if not self._slots.acquire(timeout=_QUEUE_S):
            raise RefusedError(
                f"{QUERIES_MAX} other queries are running", fix="wait until one of them has ended"
            )
        try:
            yield
        finally:
            self._slots.release()

    def records(self, sql: str, *, rows_max: int) -> list[dict[str, Any]]:
        """Return the rows of one of our own queries as plain values."""
        found = self.rows(sql, rows_max=rows_max)
        names = [column["name"] for column in found["columns"]]
        return [dict(zip(names, row, strict=True)) for row in found["rows"]]
