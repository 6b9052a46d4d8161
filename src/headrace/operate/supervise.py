"""Runs a runtime in a thread of its own, and stops it when somebody asks.

The engine works beside the main thread, so that a signal is answered at once whatever the engine is doing.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from headrace.engine.local import EpochReport
    from headrace.log.backoff import Waiting
    from headrace.operate.runtime import Runtime

__all__ = ["StopSignals", "supervise"]

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StopSignals:
    """While open, SIGINT and SIGTERM set `stop` instead of ending the process.

    The second one says through `tell` what is still being done; the third one leaves at once, which is safe:
    what was not committed is read again by the next run.
    """

    def __init__(self, stop: threading.Event, tell: Callable[[str], None]) -> None:
        self.received = 0
        self.at_work = True
        """Whether there are epochs; False while a run is opened, which ends before its first one."""
        self._stop = stop
        self._tell = tell
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> StopSignals:
        for number in _SIGNALS:
            self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self.received += 1
        self._stop.set()
        if self.received == 1:
            self._tell("stopping after this epoch" if self.at_work else "stopping")
        elif self.received == 2:
            still = "committing an epoch, so that nothing is done twice" if self.at_work else "being opened"
            self._tell(f"still {still}; once more leaves at once")
        else:
            os._exit(128 + number)


def supervise(
    runtime: Runtime,
    stop: threading.Event,
    *,
    until_caught_up: bool = False,
    on_epoch: Callable[[EpochReport], None] | None = None,
    on_waiting: Callable[[Waiting | None], None] | None = None,
    draw: Callable[[], None] | None = None,
    draw_every_s: float = 0.25,
    seconds: float | None = None,
) -> None:
    """Run until `stop` is set, everything was read, or `seconds` are over; `draw` is called in this thread.

    Raises what the engine raised.
    """
    done = threading.Event()
    failures: list[BaseException] = []

    def work() -> None:
        try:
            runtime.run(stop, until_caught_up=until_caught_up, on_epoch=on_epoch, on_waiting=on_waiting)
        except BaseException as error:  # noqa: BLE001 - raised again in the main thread
            failures.append(error)
        finally:
            done.set()

    end = None if seconds is None else time.monotonic() + seconds
    thread = threading.Thread(target=work, name="headrace-engine")
    thread.start()
    try:
        while not done.wait(
            draw_every_s if end is None else min(draw_every_s, max(end - time.monotonic(), 0))
        ):
            if end is not None and time.monotonic() >= end:
                stop.set()
                done.wait()
            elif draw is not None:
                draw()
    finally:
        stop.set()
        thread.join()
    if failures:
        raise failures[0]
