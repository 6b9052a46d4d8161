"""What a run or a command waits for, in words: what it is, since when, and what to do about it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from headrace.log.backoff import Waiting

__all__ = ["WaitingWords"]

_KNOWN_MAX = 20
_UNSURE_S = 30.0
"""How long after something became ready the next try of another wait may fail: a longest pause, and a try."""
_FIX = "see that it runs and can be reached from here, and that headrace.toml names it rightly"


class WaitingWords:
    """Follows one run or command: `take` is given what `when_ready` tells, by any thread.

    Two things may be waited for at once, by threads of their own; that one of them is ready is told without
    saying which. `now` says when a wait began, for people; nothing is decided by it. `clock` gives seconds
    that never go back: how long ago something became ready.
    """

    def __init__(
        self,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._now = now
        self._clock = clock
        self._wait: tuple[Waiting, datetime] | None = None
        """What is waited for and since when; one value, because several threads tell and ask."""
        self._lock = threading.Lock()
        self._begun: dict[str, datetime] = {}
        """Since when each thing is waited for, by its words."""
        self._unsure: dict[str, tuple[datetime, float]] = {}
        """The same, and when something became ready while it was waited for: that may have been this."""

    def take(self, pause: Waiting | None) -> bool:
        """Note a try that failed, or None: it is ready. Returns whether somebody should be told.

        That is when a wait begins, when another thing is waited for as well, and when one goes on after
        another one was ready.
        """
        with self._lock:
            wait = self._wait
            if pause is None:
                self._wait = None
                ready = self._clock()
                begun = {words: (since, ready) for words, since in self._begun.items()}
                self._unsure = dict([*self._unsure.items(), *begun.items()][-_KNOWN_MAX:])
                self._begun = {}
                return False
            self._wait = (pause, self._since(pause, wait))
            if pause.attempt > 1:  # told before, unless "ready" was told since, which was another thing
                return wait is None
            return wait is None or pause.error.message != wait[0].error.message

    def _since(self, pause: Waiting, wait: tuple[Waiting, datetime] | None) -> datetime:
        """Return when the wait of this try began, and remember it; `wait` is what was told last."""
        words = pause.error.message
        since = self._begun.get(words)
        if since is None and pause.attempt > 1:
            unsure = self._unsure.get(words)
            if unsure is not None and self._clock() - unsure[1] <= _UNSURE_S:
                since = unsure[0]
        if since is None and wait is not None and (pause.attempt > 1 or wait[0].error.message in words):
            since = wait[1]  # the same in other words, or together with another thing
        self._begun[words] = since = since or self._now()
        if len(self._begun) > _KNOWN_MAX:
            del self._begun[next(iter(self._begun))]
        return since

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
