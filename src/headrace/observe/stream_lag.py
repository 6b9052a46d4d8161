"""What the log of a stream says: whether it answers, and how many records wait there."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from headrace.errors import HeadraceError
from headrace.observe.metrics import Sample

if TYPE_CHECKING:
    from headrace.log import Log
    from headrace.store.store import Store

__all__ = ["ASKED_EVERY_S", "StreamLag"]

ASKED_EVERY_S = 5.0


class StreamLag:
    """Asks one log. In a run it does so in a thread of its own: a log that is away takes long to answer."""

    def __init__(self, store: Store, stream: str, log_of: Callable[[str], Log | None]) -> None:
        self.samples: list[Sample] = []
        """What the last answer gave."""
        self.unread = 0
        """How many records waited when the log last answered."""
        self._store = store
        self._stream = stream
        self._log_of = log_of

    def ask(self) -> None:
        """Ask once; a log that does not answer is a sample, too, whatever it raised.

        Raises what is no HeadraceError: that is a bug, and whoever observes tells it.
        """
        labels = {"stream": self._stream}
        found: list[Sample] = []
        try:
            log = self._log_of(self._stream)
            if log is not None:
                read = self._store.progress.positions(self._stream, "main")
                self.unread = sum(each.unread(read.get(each.partition)) for each in log.partitions())
                found.append(Sample("headrace_lag_records", labels, self.unread))
        except HeadraceError:  # the metric says it; the engine says why
            pass
        finally:
            self.samples = [*found, Sample("headrace_log_up", labels, float(bool(found)))]

    def ask_on(self, ended: threading.Event, guarded: Callable[[Callable[[], None]], None]) -> None:
        """Ask every few seconds until `ended`; the work of a thread."""
        while not ended.is_set():
            guarded(self.ask)
            ended.wait(ASKED_EVERY_S)
