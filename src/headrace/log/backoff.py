"""Waiting for another system that is not ready, with bounded back-off."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from headrace.errors import TransientError

__all__ = ["Waiting", "when_ready"]

_FIRST_S = 0.2
_MAX_S = 10.0
_GROWTH = 2.0
_JITTER = 0.25
"""Share by which a pause is longer or shorter: many that wait for one system do not come back as one."""

_Result = TypeVar("_Result")


@dataclass(frozen=True)
class Waiting:
    """What is waited for, how often it was tried, and for how many seconds the next pause is."""

    error: TransientError
    attempt: int
    seconds: float

    def __str__(self) -> str:
        return f"{self.error.message}; try {self.attempt} failed, the next one in {self.seconds:.1f} s"


def when_ready(
    action: Callable[[], _Result], stop: threading.Event, tell: Callable[[Waiting | None], None]
) -> _Result | None:
    """Return what `action` returns as soon as it raises no TransientError; None when `stop` was set first.

    Pauses grow from 0.2 s to 10 s and never end the waiting: only `stop`, or an error of another kind, does.
    `tell` is given every failure and, after one, None when it is over.
    """
    pause, attempt = _FIRST_S, 0
    while True:
        try:
            result = action()
        except TransientError as error:
            attempt += 1
            seconds = pause * random.uniform(1 - _JITTER, 1 + _JITTER)  # noqa: S311 - not a secret
            tell(Waiting(error, attempt, seconds))
            if stop.wait(seconds):
                return None
            pause = min(pause * _GROWTH, _MAX_S)
        else:
            if attempt:
                tell(None)
            return result
