"""Counts of observations by size, since the process began and over the last minute."""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from collections.abc import Sequence

__all__ = ["QUANTILES", "Histogram"]

QUANTILES = (0.5, 0.95, 0.99)
_TICKS_KEPT = 60


class Histogram:
    """`counts` holds one number for each bound and one for what is above the last."""

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = tuple(bounds)
        self.counts = [0] * (len(self.bounds) + 1)
        self.sum = 0.0
        self._before: deque[list[int]] = deque([list(self.counts)], maxlen=_TICKS_KEPT + 1)

    @property
    def count(self) -> int:
        """Observations since the process began."""
        return sum(self.counts)

    def observe(self, value: float, times: int = 1) -> None:
        """Count an observation that stands for `times`."""
        self.counts[bisect_left(self.bounds, value)] += times
        self.sum += value * times

    def tick(self) -> None:
        """Say that a second is over."""
        self._before.append(list(self.counts))

    def quantile(self, share: float) -> float | None:
        """Return the value below which `share` of the last minute's observations lie; None: there were none.

        Like Prometheus's histogram_quantile: linear inside a bucket; above the last bound, that bound.
        """
        counts = [now - before for now, before in zip(self.counts, self._before[0], strict=True)]
        total = sum(counts)
        if not total:
            return None
        rank, passed, lower = share * total, 0, 0.0
        for bound, count in zip(self.bounds, counts, strict=False):
            if count and passed + count >= rank:
                return lower + (bound - lower) * max(0.0, rank - passed) / count
            passed, lower = passed + count, bound
        return self.bounds[-1]
