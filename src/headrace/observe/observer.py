"""`Observer`: takes every metric once a second, keeps the last values, and writes their history.

It works in a thread of its own beside the engine. Nothing here may stop or slow the pipeline: the engine only
hands over its report of an epoch, and whatever fails here is told in the journal once and tried again.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from headrace.observe.epochs import EpochFigures
from headrace.observe.exposition import Exposition
from headrace.observe.gather import (
    ProcessFigures,
    failed_cells,
    from_ledger,
    from_minutes,
    from_replicas,
    from_spark,
    frontier_of,
    state_rows,
)
from headrace.observe.metrics import Sample
from headrace.observe.stream_lag import ASKED_EVERY_S, StreamLag
from headrace.store.history import SampleHistory, labels_text

if TYPE_CHECKING:
    from headrace.engine.local.settings import EpochReport
    from headrace.log import Log
    from headrace.store.store import Store

__all__ = ["Observer", "RunFacts", "utc_now"]

_TICK_S = 1.0
_WRITE_S = 5.0
_SLOW_S = 15.0
_STOP_S = 1.0
_ASKING_SHARE = 50
"""Questions to the store pause for this many times as long as the last ones took: 2 % at most."""


def utc_now() -> datetime:
    """Return the machine's time."""
    return datetime.now(UTC)


class RunFacts(Protocol):
    """What a run tells about itself, each when asked; called from the observer's thread."""

    def log_of(self, stream: str) -> Log | None:
        """The log of a stream, apart from the one that the engine reads."""

    def replica_states(self) -> Sequence[Mapping[str, Any]]:
        """Where replicas stand."""

    def journal_lines(self) -> Mapping[str, int]:
        """How many lines of each level the journal got."""

    def observing_failed(self, error: Exception) -> None:
        """Something could not be observed; told once for each kind of error."""


class Observer:
    """Metrics of a run. `start` and `stop` frame its thread; without them a test calls `tick` itself.

    streams  the allowed lateness of each stream, by its name
    """

    def __init__(
        self,
        store: Store,
        facts: RunFacts,
        *,
        streams: Mapping[str, timedelta],
        log_path: Path,
        version: str,
        clock: Callable[[], datetime] = utc_now,
        known_names: bool = False,
        alias: Mapping[str, str] | None = None,
    ) -> None:
        self.on_tick: list[Callable[[datetime, list[Sample]], None]] = []
        """Told the time and all samples after each tick, in the observer's thread; to return at once."""
        self.alert_states: Callable[[], Sequence[Mapping[str, Any]]] = list
        """Gives the alerts of the run, where they are looked at; see `Alerts.states`."""
        self.telemetry_states: Callable[[], Sequence[Mapping[str, Any]]] = list
        """Gives how receivers of traces and lineage are served, where there are any; see `Signal.state`."""
        self.spark: Callable[[], Mapping[str, Any] | None] = lambda: None
        """Gives what Spark says of the run, where it runs on Spark; see `ClusterFacts`."""
        self.restarts = 0
        """How often a run began after one that failed or was killed; told before `start`."""
        self.epochs = EpochFigures(tuple(streams))
        self.exposition = Exposition(
            self.samples, self.epochs.families.values, known=known_names, alias=alias
        )
        self._store = store
        self._facts = facts
        self._lateness = {name: allowed.total_seconds() for name, allowed in streams.items()}
        self._version = version
        self._clock = clock
        self._history = SampleHistory(store)
        self._process = ProcessFigures(store.path, log_path)
        self._started = clock().timestamp()
        self._samples: list[Sample] = []
        self._lags = [StreamLag(store, stream, facts.log_of) for stream in streams]
        self._asked: dict[str, list[Sample]] = {}
        self._due: dict[str, float] = {}
        self._seconds = 0.0
        self._waiting = False
        self._retries = 0
        self._told: set[str] = set()
        self._texts: dict[tuple[tuple[str, str], ...], str] = {}
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None
        self._asking: list[threading.Thread] = []

    # --- told by the run

    def committed(self, report: EpochReport) -> None:
        """Take the report of an epoch; called by the engine's thread after its commit."""
        self.epochs.take(report, self._clock().timestamp())

    def waiting(self, waits: bool) -> None:
        """Note that the engine waits for a log, or that it goes on."""
        self._waiting = waits
        self._retries += waits

    def start(self) -> None:
        """Begin to take metrics once a second."""
        self._ended.clear()
        self._thread = threading.Thread(target=self._run, name="headrace-observer", daemon=True)
        guarded = partial(self._guarded, "lag")
        self._asking = [
            threading.Thread(
                target=lag.ask_on, args=(self._ended, guarded), name=f"headrace-lag-{stream}", daemon=True
            )
            for stream, lag in zip(self._lateness, self._lags, strict=True)
        ]
        for each in (*self._asking, self._thread):
            each.start()

    def stop(self) -> None:
        """End the thread and write what was taken. Harmless when nothing runs."""
        thread, self._thread = self._thread, None
        if thread is not None:
            self._ended.set()
            thread.join()
            self._guarded("metrics", self.tick)  # the last epochs are in the history, too
            # A log that answers is asked no more when this returns. One that is away lets wait for many
            # seconds, and its question goes nowhere: it may be closed meanwhile.
            until = time.monotonic() + _STOP_S
            for each in self._asking:
                each.join(max(0.0, until - time.monotonic()))
            self._asking = []
        self._guarded("history", lambda: self._history.write(self._clock()))

    def close(self) -> None:
        """Stop, and give the store back."""
        self.stop()
        self._history.close()

    # --- asked by others

    def samples(self) -> list[Sample]:
        """Return the values of the last tick."""
        return self._samples

    def expose(self) -> tuple[bytes, str]:
        """Return the body and the content type of an answer to Prometheus."""
        return self.exposition.text()

    # --- the thread

    def _run(self) -> None:
        due = time.monotonic()
        while not self._ended.is_set():
            self._guarded("metrics", self.tick)
            due = max(due + _TICK_S, time.monotonic())
            self._ended.wait(due - time.monotonic())

    def tick(self) -> None:
        """Take every value now."""
        begun = time.thread_time()
        now = self._clock()
        answers = list(self._answers(now.timestamp()))
        samples = [*self._live(now), *answers]
        self.epochs.tick()
        self._history.add(now, [(each.name, self._text_of(each.labels), each.value) for each in samples])
        self._samples = samples
        for listener in list(self.on_tick):
            self._guarded("listener", partial(listener, now, samples))
        if self._is_due("write", now.timestamp(), _WRITE_S):
            self._history.write(now)
        self._seconds += time.thread_time() - begun

    def _text_of(self, labels: Mapping[str, str]) -> str:
        known = tuple(labels.items())
        text = self._texts.get(known)
        if text is None:
            text = self._texts[known] = labels_text(labels)
        return text

    def _live(self, now: datetime) -> Iterator[Sample]:
        """Give what costs nothing to know."""
        progress = self._store.progress
        yield from from_ledger(progress)
        yield from self.epochs.samples()
        yield from self._process.samples()
        yield from from_spark(self.spark())
        for stream, lag in zip(self._lateness, self._lags, strict=True):
            waits = 0.0
            frontier = frontier_of(progress, stream)
            if frontier is not None:
                watermark = frontier - self._lateness[stream]
                yield Sample("headrace_watermark_timestamp_seconds", {"stream": stream}, watermark)
            if lag.unread and frontier is not None:
                waits = max(0.0, now.timestamp() - frontier)
            yield Sample("headrace_lag_seconds", {"stream": stream}, waits)
            delay = max(waits, self.epochs.age(stream))
            yield Sample("headrace_processing_delay_seconds", {"stream": stream}, delay)
        yield Sample("headrace_up", {}, 1)
        yield Sample("headrace_waiting", {}, float(self._waiting))
        yield Sample("headrace_retries_total", {}, self._retries)
        for level, lines in self._facts.journal_lines().items():
            yield Sample("headrace_errors_total", {"level": level}, lines)
        for alert in self.alert_states():
            labels = {"alert": alert["name"], "severity": alert["severity"]}
            yield Sample("headrace_alert_firing", labels, float(alert["state"] == "firing"))
        for signal in self.telemetry_states():
            for result in ("sent", "dropped"):
                labels = {"signal": signal["signal"], "result": result}
                yield Sample("headrace_telemetry_total", labels, signal[result])
        yield Sample("headrace_start_timestamp_seconds", {}, self._started)
        yield Sample("headrace_restarts_total", {}, self.restarts)
        yield Sample("headrace_build_info", {"version": self._version}, 1)
        yield Sample("headrace_observe_seconds_total", {}, self._seconds)
        yield Sample("headrace_series_dropped", {}, self._history.dropped)

    def _answers(self, now_s: float) -> Iterator[Sample]:
        """Give what others have to be asked for: now, if it is due, or as they answered last time."""
        if not self._asking and self._is_due("lag", now_s, ASKED_EVERY_S):
            for lag in self._lags:
                self._guarded("lag", lag.ask)
        for lag in self._lags:
            yield from lag.samples
        questions: tuple[tuple[str, float, Callable[[], list[Sample]]], ...] = (
            ("counts", _WRITE_S, lambda: from_minutes(self._store)),
            ("state", _SLOW_S, lambda: state_rows(self._store, self._store.progress.tables)),
            ("cells", _SLOW_S, lambda: failed_cells(self._store)),
            ("disk", _SLOW_S, self._probe),
            ("replicas", _TICK_S, lambda: self._replicas(now_s)),
        )
        for name, every_s, ask in questions:
            if self._is_due(name, now_s, every_s):
                begun = time.monotonic()
                self._guarded(name, partial(self._ask, name, ask))
                took = time.monotonic() - begun
                self._due[name] = max(self._due[name], now_s + _ASKING_SHARE * took)
            yield from self._asked.get(name, ())

    def _ask(self, name: str, ask: Callable[[], list[Sample]]) -> None:
        self._asked[name] = ask()

    def _is_due(self, name: str, now_s: float, every_s: float) -> bool:
        due = self._due.get(name, 0.0)
        if now_s < due and due - now_s <= _ASKING_SHARE * _SLOW_S:  # a clock that stepped back is no reason
            return False
        self._due[name] = now_s + every_s - _TICK_S / 2
        return True

    def _replicas(self, now_s: float) -> list[Sample]:
        return list(from_replicas(self._facts.replica_states(), self._store, now_s))

    def _probe(self) -> list[Sample]:
        self._process.probe_disk()
        return []

    def _guarded(self, what: str, work: Callable[[], object]) -> None:
        try:
            work()
        except Exception as error:  # noqa: BLE001 - what is observed must not depend on who observes
            kind = f"{what}: {type(error).__name__}"
            if kind not in self._told:
                self._told.add(kind)
                self._facts.observing_failed(error)
