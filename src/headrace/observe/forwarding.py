"""Hands what a run tells to another program: bounded, in a thread of its own, and never in anybody's way."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

if TYPE_CHECKING:
    from headrace.engine.local.settings import EpochReport

__all__ = ["QUEUE_MAX", "Forwarding", "Signal"]

QUEUE_MAX = 2_000
BATCH_MAX = 200
TRIES_MAX = 3
_LINGER_S = 1.0
_PAUSE_FIRST_S = 1.0
_STOP_S = 4.0

T = TypeVar("T")


class Signal(Protocol):
    """What is told of a run in one way; every call returns at once but `stop`, which may take seconds."""

    def start(self, now: datetime) -> None:
        """The run begins."""

    def committed(self, report: EpochReport, now: datetime) -> None:
        """An epoch was committed; called by the engine's thread."""

    def tick(self, now: datetime) -> None:
        """About a second went by."""

    def stop(self, now: datetime, error: str) -> None:
        """The run is over; `error` says why, if it failed."""

    def close(self) -> None:
        """Give back connections."""

    def state(self) -> dict[str, Any]:
        """See `Forwarding.state`."""


class Forwarding(Generic[T]):
    """A queue of at most `QUEUE_MAX` items, and a thread that sends them in batches.

    send    delivers a batch within seconds, or raises an OSError whose text may be shown
    size    how many of what is counted an item stands for: spans, events
    failed  told (signal, why) when the receiver begins to fail; not again until it took something

    What comes while the queue is full is dropped, and so is a batch that was not taken after `tries` tries;
    both are counted. `start` and `stop` frame the thread.
    """

    def __init__(
        self,
        signal: str,
        send: Callable[[Sequence[T]], None],
        *,
        size: Callable[[T], int],
        failed: Callable[[str, str], None],
        tries: int = TRIES_MAX,
        queue_max: int = QUEUE_MAX,
    ) -> None:
        self.signal = signal
        self._send = send
        self._size = size
        self._failed = failed
        self._tries = tries
        self._queue_max = queue_max
        self._waiting: deque[T] = deque()
        self._under_way: list[T] = []
        self._changed = threading.Condition()
        self._ended = threading.Event()
        self._left_behind = False
        self._sent = 0
        self._dropped = 0
        self._problem = ""
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin to send."""
        self._ended.clear()
        self._left_behind = False
        self._thread = threading.Thread(target=self._run, name=f"headrace-{self.signal}", daemon=True)
        self._thread.start()

    def offer(self, item: T) -> None:
        """Queue an item, or drop it. Returns at once."""
        with self._changed:
            if self._ended.is_set() or len(self._waiting) >= self._queue_max:
                self._dropped += self._size(item)
                return
            self._waiting.append(item)
            self._changed.notify()

    def state(self) -> dict[str, Any]:
        """Return what was sent and dropped, how much waits, and why the receiver takes nothing, if so."""
        with self._changed:
            return {
                "signal": self.signal,
                "sent": self._sent,
                "dropped": self._dropped,
                "waiting": sum(map(self._size, (*self._under_way, *self._waiting))),
                "problem": self._problem,
            }

    def stop(self) -> None:
        """Give what waits a moment to be sent; what is left then is dropped, and the thread left behind."""
        thread, self._thread = self._thread, None
        with self._changed:
            self._ended.set()
            self._changed.notify()
        if thread is not None:
            thread.join(_STOP_S)
        with self._changed:
            self._left_behind = True  # nobody listens any more to what it would tell
            self._dropped += sum(map(self._size, self._waiting))
            self._waiting.clear()

    def _run(self) -> None:
        while batch := self._next():
            self._deliver(batch)

    def _next(self) -> list[T]:
        """Wait for items; none: it is over."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._ended.is_set())
        self._ended.wait(_LINGER_S)  # a request for each of many small epochs would cost both sides more
        with self._changed:
            self._under_way = [self._waiting.popleft() for _ in range(min(BATCH_MAX, len(self._waiting)))]
            return self._under_way

    def _deliver(self, batch: Sequence[T]) -> None:
        pause = _PAUSE_FIRST_S
        for attempt in range(1, self._tries + 1):
            try:
                self._send(batch)
            except Exception as error:  # noqa: BLE001 - whoever observes must not end what is observed
                why = (
                    f"{type(error).__name__}: {error}" if isinstance(error, OSError) else type(error).__name__
                )
                self._note(why)
                if attempt < self._tries:
                    self._ended.wait(pause)
                    pause *= 2
            else:
                self._note("")
                return self._done(sent=True)
        self._done(sent=False)

    def _done(self, *, sent: bool) -> None:
        with self._changed:
            size = sum(map(self._size, self._under_way))
            self._under_way = []
            self._sent += size if sent else 0
            self._dropped += 0 if sent else size

    def _note(self, problem: str) -> None:
        with self._changed:
            begins = bool(problem) and not self._problem and not self._left_behind
            self._problem = problem
        if begins:
            self._failed(self.signal, problem)
