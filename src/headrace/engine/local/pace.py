"""How many records an epoch takes: as many as keep it short on this machine, with these tables.

And how long one of few records waits for more of them.
"""

from __future__ import annotations

from collections import deque
from statistics import median

__all__ = ["Linger", "Pace"]

_FIRST = 16_000
"""Rows of the first epoch: statements are planned in it, and somebody waits for the first commit."""

_LEAST = 2_000
_SECONDS = 1.2
"""What the longest stage of an epoch should take: for so long a stop waits, and memory is held."""

_GROWTH = 3

_SHARE = 4
"""Records wait so many times as long as an epoch takes at most: rare ones then cost a fifth of a core."""

_RECORD_S = 0.001
"""What a record may cost: as many as share the cost of an epoch so wait for no more of them."""

_COSTS = 9
_WEIGHT = 0.5
_APART_S_MAX = 0.5
"""A pause counts as one so short, so that what comes after it soon weighs more than what came before."""


class Pace:
    """Learns the number of rows from how long the longest stage of the last epoch took."""

    def __init__(self, rows_max: int) -> None:
        self.rows_max = rows_max
        """The most that `rows` may be; another thread may set it."""
        self._rows = _FIRST

    @property
    def rows(self) -> int:
        """How many records the next epoch takes at most."""
        return min(self._rows, self.rows_max)

    def learn(self, rows: int, seconds: float) -> None:
        """Take note that `rows` took `seconds`; an epoch that was not full says only whether it was slow."""
        if seconds <= 0 or (2 * rows < self.rows and seconds <= _SECONDS):
            return
        fitting = int(rows * _SECONDS / seconds)
        self._rows = min(max(fitting, _LEAST), _GROWTH * self.rows)


class Linger:
    """Learns how long few records wait from what small epochs cost and how fast records came lately."""

    def __init__(self) -> None:
        self._costs: deque[float] = deque(maxlen=_COSTS)
        self._cost = 0.0
        self._ended: float | None = None
        self._records = self._seconds = 0.0

    def learn(self, records: int, seconds: float, ended: float) -> None:
        """Take note of an epoch of few records: how long it took and when it ended, on a monotonic clock."""
        self._costs.append(seconds)
        self._cost = median(self._costs)  # one that the disk held up says nothing about the next
        if self._ended is not None:
            self._records = _WEIGHT * self._records + records
            self._seconds = _WEIGHT * self._seconds + min(ended - self._ended, _APART_S_MAX)
        self._ended = ended

    def seconds(self, found: int, age: float, most: float) -> float:
        """Return how long an epoch of `found` records waits for more.

        Until those will have come that share its cost, at the rate of late; but the first, which has waited
        for `age` seconds, waits for `most` at most.
        """
        missing = self._cost / _RECORD_S - found
        if missing <= 0:
            return 0.0
        longest = max(0.0, min(most, _SHARE * self._cost) - max(0.0, age))
        return min(longest, missing * self._seconds / self._records) if self._records else longest
