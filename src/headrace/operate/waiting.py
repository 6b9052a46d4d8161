"""What a run or a command waits for, in words: what it is, since when, and what to do about it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from headrace.log.backoff import Waiting

__all__ = ["WaitingWords"]

_FIX = "see that it runs and can be reached from here, and that headrace.toml names it rightly"


class WaitingWords:
    """Follows one run or command: `take` is given what `when_ready` tells.

    `now` says when a wait began, for people; nothing is decided by it.
    """

    def __init__(self, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._now = now
        self._wait: tuple[Waiting, datetime] | None = None
        """What is waited for and since when; one value, because several threads tell and ask."""

    def take(self, pause: Waiting | None) -> bool:
        """Note a try that failed, or None: it is ready. Returns whether somebody should be told.

        That is when a wait begins, and when another thing is waited for as well.
        """
        wait = self._wait
        if pause is None:
            self._wait = None
            return False
        self._wait = (pause, self._now() if wait is None else wait[1])
        if pause.attempt > 1:  # told before; of two things that are waited for, the other one is ready
            return False
        return wait is None or pause.error.message != wait[0].error.message

    @property
    def fix(self) -> str:
        """What to do; empty while nothing is waited for."""
        wait = self._wait
        return "" if wait is None else wait[0].error.fix or _FIX

    @property
    def line(self) -> str:
        """All of it in one line; empty while nothing is waited for."""
        if (wait := self._wait) is None:
            return ""
        pause, since = wait
        return f"{pause}; since {since:%H:%M:%S} UTC; fix: {pause.error.fix or _FIX}"

    def lines(self, *, tries: bool = False) -> str:
        """All of it for people at a terminal, on request with how often it was tried.

        Empty while nothing is waited for.
        """
        if (wait := self._wait) is None:
            return ""
        pause, since = wait
        return (
            f"waiting: {pause if tries else pause.error.message}\n"
            f"  since {since:%H:%M:%S} UTC; goes on by itself when it is ready, Ctrl-C ends it\n"
            f"  fix: {pause.error.fix or _FIX}"
        )
