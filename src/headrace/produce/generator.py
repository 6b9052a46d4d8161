"""Runs a generator: at a pace, without one, or over hours of the past.

A generator makes records; this page decides when, how many at a time, and what happens when the log is not
ready.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from threading import Event
from typing import ClassVar, Protocol

import pyarrow as pa

from headrace.errors import ProfileError, TransientError
from headrace.log.protocol import Log

__all__ = [
    "BlueprintGenerator",
    "Generator",
    "GeneratorProgress",
    "GeneratorReport",
    "Rate",
    "load_history",
    "run_generator",
]

RATE_DEFAULT = 14.0
BATCH_ROWS_MAX = 20_000
"""Records of one append when unlimited: about 4 MB, and one write to disk for all of them."""

_PROGRESS_EVENTS = 1000
_LINGER_S = 0.02  # above 50 events/s an append holds what 20 ms give, below it holds one event
_BEHIND_S_MAX = 5.0  # a pace that was lost for longer is not caught up with: it would be a burst, not a pace
_LOOK_AGAIN_S = 1.0  # the rate may have changed while an event was waited for
_RETRY_FIRST_S = 0.1
_RETRY_LAST_S = 2.0
_RETRIES_MAX = 8  # then the batch is given up: no `BackOff`, which waits for ever, by chance, and tells of it
_LATENCIES_KEPT = 10_000
_HISTORY_PIECE = timedelta(minutes=5)
_UNLIMITED_RATE = 250_000.0  # spacing of event times until a rate was measured


class Generator(Protocol):
    """Makes the records of one stream, deterministic from a seed: the same calls give the same bytes."""

    @property
    def stream(self) -> str:
        """The stream that the records are for."""

    def batch(self, start: datetime, count: int, *, rate: float) -> pa.Table:
        """Return the next `count` records (APPEND_SCHEMA), arriving from `start` on, `rate` a second.

        `record_time` holds the arrivals, in order; event times lie before them by the delay of each record.
        """

    def activity(self, at: datetime) -> float:
        """How busy the hour of `at` is; the mean over a day is 1. Used for history only."""


class BlueprintGenerator(Generator, Protocol):
    """The generator of a blueprint, which `headrace generate NAME` runs.

    It is a dataclass whose fields are its settings (`--set NAME=VALUE`), all with defaults. One that declares
    incidents has a setting `incident`: the name of the one that goes on for as long as it runs, or nothing.
    """

    incidents: ClassVar[Mapping[str, str]]
    """What can be made to go wrong on command, each with what is then seen."""
    rate_default: ClassVar[float]
    """Events a second when nobody says how many."""

    @property
    def facts(self) -> tuple[tuple[str, str], ...]:
        """What was made so far, in words: (name, value) for whoever ran it; none before the first event."""


@dataclass(frozen=True)
class GeneratorProgress:
    """How far a run has come. `rate` is measured since its start, in events a second."""

    events: int
    failed: int
    rate: float


@dataclass(frozen=True)
class GeneratorReport:
    """What a run did. `events` are durable in the log; `failed` were given up after all retries.

    The percentiles are seconds that one append took, retries included (the latest 10,000 appends).
    """

    events: int
    failed: int
    seconds: float
    rate: float
    append_p50_s: float
    append_p95_s: float
    append_p99_s: float


class Rate:
    """Events a second of a generator; None: as many as the log takes. Any thread may change it.

    A run begins with some; one that is given 0 while it goes on makes none until it is given more.
    """

    def __init__(self, events_per_second: float | None) -> None:
        if events_per_second is not None and not 0 < events_per_second < math.inf:
            raise ProfileError(
                f"a rate of {events_per_second} events/s", fix="give a positive rate, or none for unlimited"
            )
        self.events_per_second = events_per_second


def run_generator(
    generator: Generator,
    log: Log,
    *,
    rate: Rate | float | None = RATE_DEFAULT,
    count: int | None = None,
    duration: timedelta | None = None,
    stop: Event | None = None,
    on_progress: Callable[[GeneratorProgress], None] | None = None,
    on_batch: Callable[[pa.Table], None] | None = None,
    on_append: Callable[[int, bool, float], None] | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> GeneratorReport:
    """Append records until `count`, `duration` or `stop`; without `rate` as fast as the log takes them.

    Record times are the log's own. `on_progress` is called about every 1,000 events, `on_batch` after every
    append that succeeded, `on_append` after every append (records, whether they are durable, how many seconds
    it took, retries included). A batch that the log does not take after bounded retries counts as failed and
    the run goes on; RefusedError ends it.
    """
    wanted = rate if isinstance(rate, Rate) else Rate(rate)
    run = _Run(log, stop or Event(), clock, on_progress, on_append)
    pace: _Pace | None = None
    end = None if duration is None else run.started + duration.total_seconds()
    last_arrival = log.now()
    while not run.stop.is_set() and (end is None or clock() < end):
        left = None if count is None else count - run.events - run.failed
        if left is not None and left <= 0:
            break
        rate = wanted.events_per_second
        if rate == 0:
            pace, last_arrival = None, log.now()
            run.stop.wait(_LOOK_AGAIN_S)
            continue
        if rate is None:
            pace = None
        elif pace is None or pace.rate != rate:
            pace = _Pace(rate, clock)
        if pace is None:
            size = min(BATCH_ROWS_MAX, BATCH_ROWS_MAX if left is None else left)
        else:
            size = min(pace.due(), BATCH_ROWS_MAX if left is None else left)
            if size == 0:
                pause = pace.pause() if end is None else min(pace.pause(), end - clock())
                run.stop.wait(min(max(pause, 0.0), _LOOK_AGAIN_S))
                continue
            pace.sent += size
        arrival = log.now()
        spacing = rate or _rate_between(last_arrival, arrival, size)
        start = arrival - timedelta(seconds=(size - 1) / spacing)
        last_arrival = arrival
        table = generator.batch(start, size, rate=spacing).drop_columns(["record_time"])
        if run.append(table) and on_batch is not None:
            on_batch(table)
    return run.report()


def load_history(
    generator: Generator,
    log: Log,
    *,
    hours: float,
    until: datetime,
    rate: float = RATE_DEFAULT,
    stop: Event | None = None,
    on_progress: Callable[[GeneratorProgress], None] | None = None,
) -> GeneratorReport:
    """Append the `hours` before `until` as if they had been lived through: arrivals become record times.

    `rate` is the mean over a day; the generator's `activity` makes day and night of it. Records are appended
    in the order of their record times, inside `log.load()`: nothing is taken for the end of the stream.
    """
    run = _Run(log, stop or Event(), time.monotonic, on_progress)
    at, carried = until - timedelta(hours=hours), 0.0
    waiting: list[pa.Table] = []
    with log.load():
        while at < until and not run.stop.is_set():
            now_rate = rate * generator.activity(at)
            piece = min(_HISTORY_PIECE, timedelta(seconds=BATCH_ROWS_MAX / now_rate), until - at)
            carried += piece.total_seconds() * now_rate
            size = int(carried)
            carried -= size
            if size:
                waiting.append(generator.batch(at, size, rate=size / piece.total_seconds()))
            at += piece
            if sum(len(table) for table in waiting) >= BATCH_ROWS_MAX or (at >= until and waiting):
                run.append(pa.concat_tables(waiting))
                waiting = []
    return run.report()


def _rate_between(before: datetime, after: datetime, events: int) -> float:
    seconds = (after - before).total_seconds()
    return events / seconds if seconds > 0 else _UNLIMITED_RATE


class _Pace:
    """Says how many events are due by now, and how long until there is something to do."""

    def __init__(self, rate: float, clock: Callable[[], float]) -> None:
        self.rate = rate
        self.sent = 0
        self._clock = clock
        self._began = clock()
        self._rows_min = max(1, int(rate * _LINGER_S))

    def due(self) -> int:
        """Return the events to send now; 0 as long as a batch has not come together."""
        behind = (self._clock() - self._began) - self.sent / self.rate
        if behind > _BEHIND_S_MAX:
            self._began += behind - _BEHIND_S_MAX
        # An event falls due at its place in the schedule, the first one at once.
        due = int((self._clock() - self._began) * self.rate + 1e-6) + 1 - self.sent
        return min(due, BATCH_ROWS_MAX) if due >= self._rows_min else 0

    def pause(self) -> float:
        """Return the seconds until the next batch is due."""
        return self._began + (self.sent + self._rows_min - 1) / self.rate - self._clock()


class _Run:
    """Counts, retries and reports; the same for every way of running."""

    def __init__(
        self,
        log: Log,
        stop: Event,
        clock: Callable[[], float],
        on_progress: Callable[[GeneratorProgress], None] | None,
        on_append: Callable[[int, bool, float], None] | None = None,
    ) -> None:
        self.log = log
        self.stop = stop
        self.started = clock()
        self.events = 0
        self.failed = 0
        self._clock = clock
        self._on_progress = on_progress
        self._on_append = on_append
        self._told = 0
        self._latencies: deque[float] = deque(maxlen=_LATENCIES_KEPT)

    def append(self, table: pa.Table) -> bool:
        """Append and count `table`; False when it was given up."""
        began = self._clock()
        done = self._try(table)
        seconds = self._clock() - began
        self._latencies.append(seconds)
        if self._on_append is not None:
            self._on_append(len(table), done, seconds)
        self.events += len(table) if done else 0
        self.failed += 0 if done else len(table)
        total = self.events + self.failed
        if self._on_progress is not None and total // _PROGRESS_EVENTS > self._told // _PROGRESS_EVENTS:
            self._on_progress(GeneratorProgress(self.events, self.failed, self._rate()))
        self._told = total
        return done

    def _try(self, table: pa.Table) -> bool:
        pause = _RETRY_FIRST_S
        for attempt in range(_RETRIES_MAX + 1):
            try:
                self.log.append(table)
            except TransientError:
                if attempt == _RETRIES_MAX or self.stop.wait(pause):
                    return False
                pause = min(pause * 2, _RETRY_LAST_S)
            else:
                return True
        return False

    def _rate(self) -> float:
        seconds = self._clock() - self.started
        return self.events / seconds if seconds > 0 else 0.0

    def report(self) -> GeneratorReport:
        """Return what was done since the start."""
        ordered = sorted(self._latencies) or [0.0]
        p50, p95, p99 = (ordered[min(len(ordered) - 1, int(len(ordered) * q))] for q in (0.50, 0.95, 0.99))
        seconds = self._clock() - self.started
        return GeneratorReport(self.events, self.failed, seconds, self._rate(), p50, p95, p99)
