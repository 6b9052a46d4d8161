"""Waiting for another system that is not ready, with bounded back-off."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from headrace.errors import TransientError

__all__ = ["BackOff", "Waiting", "when_ready"]

_FIRST_S = 0.2
_MAX_S = 10.0
_GROWTH = 2.0
_JITTER = 0.25
"""Share by which a pause is longer at most: many that wait for one system do not come back as one."""

_Result = TypeVar("_Result")


@dataclass(frozen=True)
class Waiting:
    """What is waited for, how often it was tried, and for how many seconds the next pause is."""

    error: TransientError
    attempt: int
    seconds: float

    def __str__(self) -> str:
        return f"{self.error.message}; try {self.attempt} failed, the next one in {self.seconds:.1f} s"


class BackOff:
    """Pauses between tries of what is not ready; they grow from `first_s` to `max_s`, and by chance.

    `tell`: see `when_ready`.
    """

    def __init__(
        self, tell: Callable[[Waiting | None], None], *, first_s: float = _FIRST_S, max_s: float = _MAX_S
    ) -> None:
        self._tell = tell
        self._first = first_s
        self._max = max_s
        self._attempt = 0
        self._pause = first_s

    def failed(self, error: TransientError, *, least_s: float = 0.0) -> float:
        """Tell that a try failed; return for how many seconds to pause: at least so many."""
        self._attempt += 1
        seconds = max(self._pause, least_s) * random.uniform(1, 1 + _JITTER)  # noqa: S311 - not a secret
        self._pause = min(self._pause * _GROWTH, self._max)
        self._tell(Waiting(error, self._attempt, seconds))
        return seconds

    def over(self) -> None:
        """Tell that it is ready, if it was not: another failure is the first of another wait."""
        if self._attempt:
            self._attempt, self._pause = 0, self._first
            self._tell(None)


def when_ready(
    action: Callable[[], _Result], stop: threading.Event, tell: Callable[[Waiting | None], None] | BackOff
) -> _Result | None:
    """Return what `action` returns as soon as it raises no TransientError; None when `stop` was set first.

    Pauses never end the waiting: only `stop`, or an error of another kind, does. `tell` is given every
    failure and, after one, None when it is over. An `action` that works for long gives a `BackOff` of its
    own instead, and tells it that it does.
    """
    back_off = tell if isinstance(tell, BackOff) else BackOff(tell)
    while True:
        try:
            result = action()
        except TransientError as error:
            if stop.wait(back_off.failed(error)):
                return None
        else:
            back_off.over()
            return result
