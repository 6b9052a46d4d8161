"""What the reports of epochs add up to: durations by stage, sizes, latencies. The engine fills it."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from headrace.observe.histogram import QUANTILES, Histogram
from headrace.observe.metrics import METRICS_BY_NAME, Sample

if TYPE_CHECKING:
    from headrace.engine.local.settings import EpochReport

__all__ = ["EpochFigures", "HistogramFamily"]

_AGE_KEPT_TICKS = 60


class HistogramFamily:
    """The histograms of one metric, by their labels."""

    def __init__(self, name: str) -> None:
        self.metric = METRICS_BY_NAME[name]
        self.by_labels: dict[tuple[str, ...], Histogram] = {}

    def observe(self, labels: tuple[str, ...], value: float, times: int = 1) -> None:
        """Count an observation; `labels` are the values of the metric's labels, in their order."""
        histogram = self.by_labels.get(labels)
        if histogram is None:
            histogram = self.by_labels[labels] = Histogram(self.metric.bounds)
        histogram.observe(value, times)

    def samples(self) -> Iterator[Sample]:
        """Give what `Sample` says of histograms."""
        for values, histogram in self.by_labels.items():
            labels = dict(zip(self.metric.labels, values, strict=True))
            yield Sample(f"{self.metric.name}_count", labels, histogram.count)
            yield Sample(f"{self.metric.name}_sum", labels, histogram.sum)
            for share in QUANTILES:
                value = histogram.quantile(share)
                if value is not None:
                    yield Sample(self.metric.name, {**labels, "quantile": str(share)}, value)


class EpochFigures:
    """Histograms of epochs, and how old records of each stream were when they were committed."""

    def __init__(self, streams: Sequence[str]) -> None:
        self.families = {
            name: HistogramFamily(name)
            for name in ("headrace_epoch_seconds", "headrace_epoch_records", "headrace_latency_seconds")
        }
        self.lock = threading.Lock()
        self._ages = dict.fromkeys(streams, (0.0, 0))
        self._skews = dict.fromkeys(streams, 0.0)
        self._ticks = 0

    def take(self, report: EpochReport, now_s: float) -> None:
        """Add an epoch that was committed at `now_s` (Unix time)."""
        spent = sum(report.seconds.values())
        with self.lock:
            for stage, seconds in report.seconds.items():
                self.families["headrace_epoch_seconds"].observe((stage,), seconds)
            self.families["headrace_epoch_seconds"].observe(("all",), spent)
            if records := sum(report.records.values()):
                self.families["headrace_epoch_records"].observe((), records)
            for stream, times in report.times.items():
                accepted = report.outcomes.get(stream, {}).get("accepted", 0)
                if times and accepted:
                    self._take_times(stream, times, accepted, now_s, spent)

    def _take_times(
        self, stream: str, times: Sequence[tuple[int, int]], accepted: int, now_s: float, spent: float
    ) -> None:
        """Count the sampled records, so that each stands for its share of all that were accepted."""
        latency = self.families["headrace_latency_seconds"]
        share, rest = divmod(accepted, len(times))
        for index, (record_time, event_time) in enumerate(times):
            weight = share + (index < rest)
            latency.observe((stream, "record"), max(0.0, now_s - record_time / 1e6), weight)
            latency.observe((stream, "event"), max(0.0, now_s - event_time / 1e6), weight)
        latency.observe((stream, "read"), spent, accepted)
        newest = max(record_time for record_time, _ in times) / 1e6
        oldest = min(record_time for record_time, _ in times) / 1e6
        self._ages[stream] = (max(0.0, now_s - oldest), self._ticks)
        self._skews[stream] = max(0.0, newest - now_s)

    def age(self, stream: str) -> float:
        """Return how old the oldest record of the last epoch was at its commit; 0 after a quiet minute."""
        age, tick = self._ages.get(stream, (0.0, 0))
        return age if self._ticks - tick <= _AGE_KEPT_TICKS else 0.0

    def tick(self) -> None:
        """Say that a second is over."""
        with self.lock:
            self._ticks += 1
            for family in self.families.values():
                for histogram in family.by_labels.values():
                    histogram.tick()

    def samples(self) -> Iterator[Sample]:
        """Give the values of now."""
        with self.lock:
            found = [sample for family in self.families.values() for sample in family.samples()]
            found += [
                Sample("headrace_clock_skew_seconds", {"stream": stream}, skew)
                for stream, skew in self._skews.items()
            ]
        yield from found
