"""How many records an epoch takes: as many as keep it short on this machine, with these tables.

And how long one of few records waits for more of them.
"""

from __future__ import annotations

__all__ = ["Linger", "Pace"]

_FIRST = 16_000
"""Rows of the first epoch: statements are planned in it, and somebody waits for the first commit."""

_LEAST = 2_000
_SECONDS = 1.2
"""What the longest stage of an epoch should take: for so long a stop waits, and memory is held."""

_GROWTH = 3

_SHARE = 4
"""An epoch of few records waits this many times as long as the last took: they take a fifth of a core."""

_RECORD_S = 0.001
"""What a record may cost: as many as share the cost of an epoch so wait for no more of them."""


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
    """Learns the wait from how long small epochs took."""

    def __init__(self) -> None:
        self._seconds = 0.0

    def learn(self, seconds: float) -> None:
        """Take note of how long an epoch of few records took."""
        self._seconds = 0.8 * self._seconds + 0.2 * seconds if self._seconds else seconds

    def seconds(self, found: int, most: float) -> float:
        """Return how long an epoch of so many records waits for more, `most` seconds at most."""
        return 0.0 if self._seconds <= found * _RECORD_S else min(most, _SHARE * self._seconds)
