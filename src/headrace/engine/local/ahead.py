"""Reads and decodes the next slices in threads of their own, while the one before is written."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from typing import TypeVar

from headrace.engine.local.apart import Apart
from headrace.engine.local.reader import FEW, Batch, Positions, Reader
from headrace.log.backoff import Waiting, when_ready

__all__ = ["ReadAhead"]

_WAIT = timedelta(milliseconds=500)
_LOOK_SECONDS = 0.2
_Item = TypeVar("_Item")


class ReadAhead:
    """Three stages at once: this reads, this runs the row stage, the caller writes.

    A stage begins when the next one has taken what it made before, so three slices are held at most. After a
    small slice nothing is read before it was asked for: records that arrive meanwhile then go into one epoch
    instead of waiting in several. Who asks for `everything` that is there now waits for nothing more.
    A log or registry that is not ready is asked again, with pauses that `waiting` is told. Of several streams
    the others are read on meanwhile.
    """

    def __init__(
        self,
        reader: Reader,
        positions: Positions,
        *,
        rows: Callable[[], int],
        linger: Callable[[int, float], float],
        everything: bool = False,
        waiting: Callable[[Waiting | None], None],
    ) -> None:
        self._waiting = waiting
        self._reader = reader
        self._positions = positions
        self._rows = rows
        self._linger = linger
        self._everything = everything
        self._read_ones: queue.Queue[list[Batch] | BaseException] = queue.Queue(maxsize=1)
        self._ready: queue.Queue[list[Batch] | BaseException] = queue.Queue(maxsize=1)
        self._stop = threading.Event()
        self._asked = threading.Event()
        # Who wants everything that is there now waits for every stream; and one stream has no others.
        self._apart = None if everything or len(reader.streams) < 2 else Apart(self._stop, waiting)
        self._given = self._taken = self._wanted = 0
        self._threads = [
            threading.Thread(target=target, name=f"headrace-{name}", daemon=True)
            for name, target in (("reader", self._read), ("rows", self._decode))
        ]

    def start(self) -> None:
        """Begin to read."""
        for thread in self._threads:
            thread.start()

    def next(self) -> list[Batch] | None:
        """Return the next slice, or None to look whether to stop; raises what reading or decoding raised."""
        self._wanted = self._taken + 1
        self._asked.set()
        try:
            found = self._ready.get(timeout=_LOOK_SECONDS)
        except queue.Empty:
            return None
        if isinstance(found, BaseException):
            raise found
        self._taken += 1
        return found

    def _read(self) -> None:
        try:
            while self._room_in(self._read_ones):
                batches = when_ready(self._look, self._stop, self._waiting)
                if batches is None:
                    return
                if not batches:
                    continue  # no stream's log answers
                for batch in batches:
                    self._positions[batch.stream, batch.lane] = dict(batch.slice.next)
                few = sum(batch.slice.records.num_rows for batch in batches) < FEW
                self._put(self._read_ones, batches)
                self._given += 1
                if few:
                    self._wait_until_asked()
        except BaseException as error:  # noqa: BLE001 - raised again in the thread that runs the epochs
            self._put(self._read_ones, error)

    def _look(self) -> list[Batch]:
        return self._reader.look(
            self._positions,
            rows_max=self._rows(),
            wait=timedelta(0) if self._everything else _WAIT,
            linger=None if self._everything else self._pause,
            apart=self._apart,
        )

    def _wait_until_asked(self) -> None:
        while not self._stop.is_set():
            self._asked.clear()
            if self._wanted > self._given:
                return
            self._asked.wait(_LOOK_SECONDS)

    def _decode(self) -> None:
        try:
            while self._room_in(self._ready):
                try:
                    found = self._read_ones.get(timeout=_LOOK_SECONDS)
                except queue.Empty:
                    continue
                if not isinstance(found, BaseException):
                    when_ready(partial(self._reader.decode, found), self._stop, self._waiting)
                self._put(self._ready, found)
        except BaseException as error:  # noqa: BLE001 - raised again in the thread that runs the epochs
            self._put(self._ready, error)

    def _pause(self, found: int, age: float) -> bool:
        """Wait for more records than were found; returns whether they were waited for."""
        seconds = self._linger(found, age)
        self._stop.wait(seconds)
        return seconds > 0

    def _room_in(self, ready: queue.Queue[list[Batch] | BaseException]) -> bool:
        """Wait until the next stage took what is there: a slice in each hand and one in between is enough.

        Returns False when it is time to end.
        """
        with ready.not_full:
            while ready.queue and not self._stop.is_set():
                ready.not_full.wait(_LOOK_SECONDS)
        return not self._stop.is_set()

    def _put(self, ready: queue.Queue[_Item], item: _Item) -> None:
        while not self._stop.is_set():
            try:
                ready.put(item, timeout=0.1)
                return
            except queue.Full:
                continue

    def close(self) -> None:
        """End both threads; what they hold is read again by the next run."""
        self._stop.set()
        self._asked.set()
        for thread in self._threads:
            thread.join(timeout=5)
        if self._apart is not None:
            self._apart.close()
