"""`Live`: what happens in a run, told to every open page in one stream of events.

Engine and journal add; pages read at their own pace. Nobody waits for a page: what it has not taken from a
bounded memory by the time that it is full is gone for it, and it is told to ask anew. Of what says how things
stand (`status`, `waiting`) only the last is kept, and of `status` none while nobody looks.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from uuid import uuid4

if TYPE_CHECKING:
    from headrace.engine.local import EpochReport
    from headrace.log.backoff import Waiting

__all__ = ["EPOCHS_KEPT", "Live", "PageFullError"]

EPOCHS_KEPT = 1_200
_EVENTS_KEPT = 2_000
_CHARACTERS_KEPT = 4_000_000
_STATES = ("status", "waiting")
_READERS_MAX = 32
_TICK_S = 0.25
_STATUS_EVERY_S = 1.0
_QUIET_S = 15.0
_STOP_S = 1.0


class PageFullError(Exception):
    """As many pages are open as may be."""


@dataclass(frozen=True)
class _Event:
    number: int
    kind: str
    body: str

    def text(self, run: str) -> str:
        return f"id: {run}-{self.number}\nevent: {self.kind}\ndata: {self.body}\n\n"


class Live:
    """Events of one run. `status` gives where everything stands; it is asked while somebody looks.

    `lines` gives the journal's new lines since it was asked last. Kinds of events: `hello` (run: whether the
    reader has to load anew), `epochs`, `status`, `journal`.
    """

    def __init__(
        self, status: Callable[[], dict[str, Any]], lines: Callable[[], list[dict[str, Any]]]
    ) -> None:
        self.run = uuid4().hex[:12]
        self._status = status
        self._lines = lines
        self._lock = threading.Lock()
        self._number = 0
        self._events: deque[_Event] = deque()
        self._characters = 0
        self._forgotten = 0
        """The number of the newest event that had to make room."""
        self._states: dict[str, _Event] = {}
        self._history: deque[dict[str, Any]] = deque(maxlen=EPOCHS_KEPT)
        self._new: list[dict[str, Any]] = []
        self._wake: dict[int, tuple[asyncio.AbstractEventLoop, asyncio.Event]] = {}
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._work, name="headrace-page-live", daemon=True)
        self._thread.start()

    # --- told by the run (any thread)

    def epoch(self, report: EpochReport) -> None:
        """Take what an epoch did. Costs the engine a list's append."""
        with self._lock:
            self._new.append({"report": report, "at": datetime.now(UTC)})

    def waiting(self, pause: Waiting | None) -> None:
        """Say at once that a run waits, or goes on."""
        self._add("waiting", {"why": "" if pause is None else str(pause)})

    def epochs(self) -> list[dict[str, Any]]:
        """Return the last epochs, oldest first."""
        with self._lock:
            return list(self._history)

    def close(self) -> None:
        """End every stream."""
        self._closed.set()
        self._thread.join(
            _STOP_S
        )  # a log that is away may keep the status waiting; nobody waits for that one
        self._tell_readers()

    # --- told to pages (the server's loop)

    async def stream(self, last_id: str) -> AsyncIterator[str]:
        """Give server-sent events: those after `last_id` where they are still known, else from now on."""
        wake = asyncio.Event()
        with self._lock:
            if len(self._wake) >= _READERS_MAX:
                raise PageFullError
            self._wake[id(wake)] = (asyncio.get_running_loop(), wake)
        try:
            at = self._position(last_id)
            yield f"retry: 1000\nevent: hello\ndata: {json.dumps({'run': self.run, 'fresh': at is None})}\n\n"
            if at is None:
                latest = self._states.get("status")
                at = self._number if latest is None else latest.number - 1
            while not self._closed.is_set():
                wake.clear()
                events = self._after(at)
                if events is None:  # it slept through more than is kept
                    yield f"event: hello\ndata: {json.dumps({'run': self.run, 'fresh': True})}\n\n"
                    at = self._number
                    continue
                if events:
                    at = events[-1].number
                    yield "".join(event.text(self.run) for event in events)
                    continue
                try:
                    await asyncio.wait_for(wake.wait(), _QUIET_S)
                except TimeoutError:
                    yield ": still here\n\n"  # so that a line that was cut is noticed
        finally:
            with self._lock:
                self._wake.pop(id(wake), None)
                if not self._wake:  # it is not asked for any more, and the next page must not see an old one
                    self._states.pop("status", None)

    def _position(self, last_id: str) -> int | None:
        run, _, number = last_id.partition("-")
        if run != self.run or not number.isdecimal():
            return None
        with self._lock:
            return int(number) if self._forgotten <= int(number) <= self._number else None

    def _after(self, number: int) -> list[_Event] | None:
        with self._lock:
            if self._forgotten > number:
                return None
            found = [event for event in (*self._events, *self._states.values()) if event.number > number]
        return sorted(found, key=lambda event: event.number)

    # --- the thread

    def _work(self) -> None:
        ticks = 0
        every = round(_STATUS_EVERY_S / _TICK_S)
        while not self._closed.wait(_TICK_S):
            ticks += 1
            epochs = self._taken()
            if epochs:
                self._add("epochs", {"epochs": epochs})
            if ticks % every == 0:
                lines = self._lines()
                if lines:
                    self._add("journal", {"lines": lines})
                if self._wake:
                    with suppress(Exception):  # the store is closing, or the log is away: told by the run
                        status = self._status()
                        if self._wake:  # the last page may have been left while it was asked for
                            self._add("status", status)

    def _taken(self) -> list[dict[str, Any]]:
        with self._lock:
            new, self._new = self._new, []
        documents = [{**each["report"].to_json(), "at": each["at"].isoformat()} for each in new]
        with self._lock:
            self._history.extend(documents)
        return documents

    def _add(self, kind: str, body: dict[str, Any]) -> None:
        text = json.dumps(body, ensure_ascii=True, separators=(",", ":"), default=str)
        with self._lock:
            self._number += 1
            event = _Event(self._number, kind, text)
            if kind in _STATES:
                self._states[kind] = event
            else:
                self._events.append(event)
                self._characters += len(text)
            while len(self._events) > _EVENTS_KEPT or self._characters > _CHARACTERS_KEPT:
                gone = self._events.popleft()
                self._characters -= len(gone.body)
                self._forgotten = gone.number
        self._tell_readers()

    def _tell_readers(self) -> None:
        with self._lock:
            waiting = list(self._wake.values())
        for loop, wake in waiting:
            with suppress(RuntimeError):  # the server ended, and its loop with it
                loop.call_soon_threadsafe(wake.set)
