"""Streams whose log does not answer: each is tried by a thread of its own, while the others are read on.

Frontiers are kept per stream, and a table waits only for the streams that it reads.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from headrace.errors import TransientError
from headrace.log.backoff import Waiting, when_ready

if TYPE_CHECKING:
    from headrace.engine.local.reader import Batch

__all__ = ["Apart"]

_JOIN_S = 5.0


class Apart:
    """The streams that are tried apart. `put` and `taken` are called by the thread that reads.

    `waiting` is told all that is waited for, as one, and None when nothing is any more.
    """

    def __init__(self, stop: threading.Event, waiting: Callable[[Waiting | None], None]) -> None:
        self._stop = stop
        self._waiting = waiting
        self._changed = threading.Condition()
        self._pauses: dict[str, Waiting] = {}
        self._threads: dict[str, threading.Thread] = {}
        self._found: dict[str, Batch | BaseException] = {}

    def __contains__(self, stream: str) -> bool:
        """Whether a stream is tried apart."""
        return stream in self._threads

    def put(self, stream: str, error: TransientError, look: Callable[[], Batch]) -> None:
        """Try `look` until the log of `stream` answers; its first try failed with `error`."""
        failed = [error]

        def action() -> Batch:
            if failed:
                raise failed.pop()
            return look()

        def work() -> None:
            found: Batch | BaseException | None
            try:
                found = when_ready(action, self._stop, lambda pause: self._tell(stream, pause))
            except BaseException as stopped:  # noqa: BLE001 - raised again in the thread that reads
                found = stopped
            with self._changed:
                if found is not None:
                    self._found[stream] = found
                self._changed.notify_all()

        thread = threading.Thread(target=work, name=f"headrace-waits-{stream}", daemon=True)
        self._threads[stream] = thread
        thread.start()

    def _tell(self, stream: str, pause: Waiting | None) -> None:
        with self._changed:
            if pause is None:
                self._pauses.pop(stream, None)
            else:
                self._pauses[stream] = pause
            latest = pause or next(iter(self._pauses.values()), None)
            if latest is None:
                self._waiting(None)
                return
            # Several streams may wait for one registry.
            words = "; ".join(dict.fromkeys(each.error.message for each in self._pauses.values()))
            error = TransientError(words, fix=latest.error.fix)
            self._waiting(Waiting(error, latest.attempt, latest.seconds))

    def taken(self, wait_s: float = 0.0) -> list[Batch]:
        """Return what logs gave that answer again, waiting so long for a first; raises what one raised."""
        with self._changed:
            self._changed.wait_for(lambda: bool(self._found) or self._stop.is_set(), wait_s)
            found, self._found = self._found, {}
        batches: list[Batch] = []
        for stream, each in found.items():
            self._threads.pop(stream).join(_JOIN_S)
            if isinstance(each, BaseException):
                raise each
            batches.append(each)
        return batches

    def close(self) -> None:
        """Wait for the threads, after `stop` was set; one that asks a silent broker ends by itself."""
        for thread in self._threads.values():
            thread.join(_JOIN_S)
