"""How many records an epoch takes: as many as keep it short on this machine, with these tables."""

from __future__ import annotations

__all__ = ["Pace"]

_FIRST = 16_000
"""Rows of the first epoch: statements are planned in it, and somebody waits for the first commit."""

_LEAST = 2_000
_SECONDS = 1.2
"""What the longest stage of an epoch should take: for so long a stop waits, and memory is held."""

_GROWTH = 3


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
