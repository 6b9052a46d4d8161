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
        self._pause: Waiting | None = None
        self._since: datetime | None = None

    def take(self, pause: Waiting | None) -> bool:
        """Note a try that failed, or None: it is ready. Returns whether somebody should be told.

        That is when a wait begins, and when another thing is waited for as well.
        """
        known = "" if self._pause is None else self._pause.error.message
        self._pause = pause
        if pause is None:
            self._since = None
            return False
        if self._since is None:
            self._since = self._now()
            return True
        return pause.attempt == 1 and pause.error.message != known

    @property
    def fix(self) -> str:
        """What to do; empty while nothing is waited for."""
        return "" if self._pause is None else self._pause.error.fix or _FIX

    @property
    def line(self) -> str:
        """All of it in one line; empty while nothing is waited for."""
        if self._pause is None or self._since is None:
            return ""
        return f"{self._pause}; since {self._since:%H:%M:%S} UTC; fix: {self.fix}"

    def lines(self, *, tries: bool = False) -> str:
        """All of it for people at a terminal, on request with how often it was tried.

        Empty while nothing is waited for.
        """
        if self._pause is None or self._since is None:
            return ""
        return (
            f"waiting: {self._pause if tries else self._pause.error.message}\n"
            f"  since {self._since:%H:%M:%S} UTC; goes on by itself when it is ready, Ctrl-C ends it\n"
            f"  fix: {self.fix}"
        )
