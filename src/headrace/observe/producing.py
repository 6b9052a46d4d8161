"""The metrics of a generator, in the generator's own process."""

from __future__ import annotations

import threading
from collections.abc import Iterator

from headrace.observe.epochs import HistogramFamily
from headrace.observe.exposition import Exposition
from headrace.observe.metrics import Sample

__all__ = ["ProducerFigures"]


class ProducerFigures:
    """Counts what was appended to a stream; `exposition` shows it, under the older names, too."""

    def __init__(self, stream: str) -> None:
        self.exposition = Exposition(self._samples, self._families, known=True)
        self._stream = stream
        self._produced = 0
        self._failed = 0
        self._took = HistogramFamily("headrace_produce_seconds")
        self._lock = threading.Lock()

    def appended(self, records: int, done: bool, seconds: float) -> None:
        """Count an append of so many records, and how long it took; not `done`: they were given up."""
        with self._lock:
            self._produced += records if done else 0
            self._failed += 0 if done else records
            self._took.observe((self._stream,), seconds)

    def _samples(self) -> Iterator[Sample]:
        labels = {"stream": self._stream}
        yield Sample("headrace_produced_records_total", labels, self._produced)
        yield Sample("headrace_produce_failed_records_total", labels, self._failed)

    def _families(self) -> tuple[HistogramFamily, ...]:
        return (self._took,)
