"""The local engine: reads the logs and writes the store, in epochs."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from typing import TypeVar

import duckdb

from headrace.engine.local.ahead import ReadAhead
from headrace.engine.local.appended import RowsTable
from headrace.engine.local.closing import Closings
from headrace.engine.local.compute import TableWriter
from headrace.engine.local.epoch import Epoch
from headrace.engine.local.grouped import GroupedTable
from headrace.engine.local.pace import Linger, Pace
from headrace.engine.local.queries import Queries
from headrace.engine.local.reader import FEW, Batch, Positions, Reader
from headrace.engine.local.rebuild import Rebuild
from headrace.engine.local.references import References
from headrace.engine.local.sessions import SessionTable
from headrace.engine.local.settings import EngineSettings, EpochReport
from headrace.engine.local.start import READER, begin_lanes, begin_rebuilds, forget_taken
from headrace.errors import TransientError
from headrace.log.backoff import Waiting, when_ready
from headrace.log.protocol import Log
from headrace.rows.framing import Framing
from headrace.rows.functions import register_functions
from headrace.sql.plan import PipelinePlan, TableClass, TablePlan
from headrace.store import Store
from headrace.store.database import memory_is_full
from headrace.store.duplicates import RememberedKeys
from headrace.store.instants import instant_of, micros_of
from headrace.store.names import keys_name

__all__ = ["LocalEngine", "table_writer"]

_Worked = TypeVar("_Worked")

_SMALL_ROWS = 2_000
_FORGET_EVERY = timedelta(hours=1)


def table_writer(plan: TablePlan, settings: EngineSettings) -> TableWriter:
    """Return what writes a table of its class."""
    if plan.kind is TableClass.ROWS:
        return RowsTable(plan)
    if plan.kind is TableClass.SESSION:
        return SessionTable(plan, side_values_max=settings.side_values_max)
    return GroupedTable(plan, side_values_max=settings.side_values_max)


class LocalEngine:
    """Runs epochs over one store. One thread calls `step` or `run`; logs and store are the caller's.

    `framings` read, by stream, records that are not plain JSON; they are the caller's, too.

    `on_step` is told the name of each effect of an epoch right after it: "read", "duplicates", "table:NAME",
    "outcomes", "closings", "ledger", "commit", "publish".
    What it raises stops the epoch there, as a crash would.
    After any error the engine and the store are to be closed and opened again.
    """

    def __init__(
        self,
        plan: PipelinePlan,
        logs: Mapping[str, Log],
        store: Store,
        *,
        settings: EngineSettings | None = None,
        on_step: Callable[[str], None] | None = None,
        framings: Mapping[str, Framing] | None = None,
    ) -> None:
        self._plan = plan
        self._store = store
        self._settings = settings or EngineSettings()
        self._on_step = on_step or (lambda name: None)
        self._reader = Reader(plan, logs, self._settings, framings or {})
        self._threads = 0
        self._linger = Linger()
        self._published: Positions = {}
        self._forgotten: datetime | None = None
        self._pace = Pace(self._settings.epoch_rows_max)
        connection = store.connection
        store.limit_memory(self._settings.memory_limit)
        functions = {f.name: f for stream in plan.streams.values() for f in stream.functions}
        register_functions(connection, functions.values())
        begin_lanes(plan, self._reader.logs, store)
        begin_rebuilds(plan, self._reader.logs, store)
        self._references = References(plan, store, self._reader.logs)
        self._learn_state()
        self._publish()

    def _learn_state(self) -> None:
        """Make what keeps in mind what the store has; a transaction that failed may have misled it."""
        connection, progress = self._store.connection, self._store.progress
        self._queries = Queries(connection)
        self._queries.alone = False
        self._writers = {
            table.name: table_writer(table, self._settings)
            for table in self._plan.tables
            if table.kind is not TableClass.VIEW
        }
        self._keys = {
            name: RememberedKeys(connection, keys_name(name), stream.stream.unique)
            for name, stream in self._plan.streams.items()
            if stream.stream.unique
        }
        self._closings = Closings(self._plan, connection, progress)
        self._rebuild = Rebuild(
            self._plan,
            self._store,
            self._queries,
            self._reader,
            self._writers,
            self._settings,
            self._on_step,
        )

    def bound(self, settings: EngineSettings) -> None:
        """Take the bounds of an epoch (rows, bytes, linger) from `settings`; what is read next keeps to them.

        Any thread may call it, also while another one runs the engine.
        """
        self._settings = replace(
            self._settings,
            epoch_rows_max=settings.epoch_rows_max,
            epoch_bytes_max=settings.epoch_bytes_max,
            linger=settings.linger,
        )
        self._pace.rows_max = settings.epoch_rows_max
        self._reader.epoch_bytes_max = settings.epoch_bytes_max

    # --- one epoch

    def step(self, *, wait: timedelta = timedelta(0), rows_max: int | None = None) -> EpochReport | None:
        """Run one epoch in this thread; None when there was nothing to read, to close or to retire.

        `wait` is how long to wait for a first record. Without `rows_max`, an epoch takes as many records as
        keep it short; see `Pace`. While tables are rebuilt, a step is a chunk of that.
        """
        rebuilt = self._rebuild_step(rows_max)
        if rebuilt is not None:
            return rebuilt
        batches = self._reader.read(self._positions(), rows_max=rows_max or self._pace.rows, wait=wait)
        self._on_step("read")
        return self._epoch(batches)

    def _positions(self) -> Positions:
        progress = self._store.progress
        return {place: progress.positions(*place) for place in self._reader.logs}

    def _rebuild_step(self, rows_max: int | None) -> EpochReport | None:
        if not self._rebuild.pending:
            return None
        begun = time.perf_counter()
        report = self._with_memory(lambda: self._rebuild.step(rows_max or self._pace.rows))
        self._pace.learn(sum(report.records.values()), time.perf_counter() - begun)
        self._publish()
        if not self._rebuild.pending:
            self._closings = Closings(self._plan, self._store.connection, self._store.progress)
        return report

    def _epoch(self, batches: list[Batch]) -> EpochReport | None:
        begun = time.perf_counter()
        epoch = self._with_memory(partial(self._committed, batches))
        if epoch is None:
            return None
        self._publish()
        self._on_step("publish")
        self._learn(batches, time.perf_counter() - begun)
        self._forget(max(batch.clock for batch in batches))
        return self._report(epoch, batches)

    def _committed(self, batches: list[Batch]) -> Epoch | None:
        """Take the batches through the store; None when there is nothing to write."""
        self._references.refresh()
        epoch = Epoch(
            self._plan, self._store, self._queries, self._writers, self._keys, self._closings, self._on_step
        )
        self._set_threads(sum(batch.slice.records.num_rows for batch in batches))
        epoch.take(batches)
        if not any(batch.moved for batch in batches) and not self._closings.due(epoch.progress):
            return None
        epoch.commit(max(batch.clock for batch in batches))
        return epoch

    def _with_memory(self, work: Callable[[], _Worked]) -> _Worked:
        """Return what `work` gives, which writes in one transaction at its end.

        Readers share the store's memory: when it is full, they are interrupted, and it is done once more.
        """
        try:
            return work()
        except (duckdb.Error, OSError) as error:
            if not memory_is_full(error):
                raise
        with self._store.without_readers():
            self._store.roll_back()  # also what DuckDB began by itself for a query that did not end
            self._learn_state()
            self._queries.alone = True
            try:
                return work()
            finally:
                self._queries.alone = False

    def _forget(self, clock: datetime) -> None:
        """Let go of what retention made useless, once an hour of the log's clock."""
        if self._forgotten is not None and clock - self._forgotten < _FORGET_EVERY:
            return
        if self._forgotten is not None:  # a start has just done it
            self._with_memory(partial(forget_taken, self._reader.logs, self._store))
        self._forgotten = clock

    def _set_threads(self, rows: int) -> None:
        """Use one thread for a small epoch: handing work over costs more than the work."""
        threads = 1 if rows <= _SMALL_ROWS else self._settings.threads
        if threads != self._threads:
            self._store.connection.execute(f"SET threads = {threads}")
            self._threads = threads

    def _publish(self) -> None:
        for stream, lane in self._reader.logs:
            positions = self._rebuild.needed(stream, lane)
            if positions and positions != self._published.get((stream, lane)):
                # Until the next epoch, older positions keep records for longer and show too large a lag.
                with suppress(TransientError):
                    self._reader.logs[stream, lane].publish(READER, positions)
                    self._published[stream, lane] = dict(positions)

    def _learn(self, batches: list[Batch], seconds: float) -> None:
        rows = sum(batch.slice.records.num_rows for batch in batches)
        read = sum(batch.seconds_read for batch in batches)
        decode = sum(batch.seconds_rows for batch in batches)
        self._pace.learn(rows, max(seconds, read, decode))
        if rows < FEW:
            self._linger.learn(rows, seconds, time.perf_counter())

    def _report(self, epoch: Epoch, batches: list[Batch]) -> EpochReport:
        progress = epoch.progress
        seconds = dict(epoch.watch.seconds)
        seconds["read"] = sum(batch.seconds_read for batch in batches)
        seconds["rows"] = sum(batch.seconds_rows for batch in batches)
        frontiers = {name: epoch.stream_frontier(name) for name in self._plan.streams}
        clocks = {batch.stream: batch.clock for batch in batches if batch.lane == "main"}
        lag = {
            name: None if frontier is None else max(0.0, (micros_of(clocks[name]) - frontier) / 1e6)
            for name, frontier in frontiers.items()
            if name in clocks
        }
        return EpochReport(
            epoch=progress.epoch,
            records=epoch.records(),
            outcomes=epoch.outcomes(),
            rows=epoch.rows,
            seconds=seconds,
            frontiers={name: instant_of(frontier) for name, frontier in frontiers.items()},
            lag_records=self._unread(batches),
            lag_seconds=lag,
            times=epoch.times(),
            parents=epoch.parents() if self._settings.parents else {},
        )

    def _unread(self, batches: list[Batch]) -> dict[str, int]:
        """Return how many records each stream had left when it was read; nothing is asked of the log."""
        unread = {}
        for batch in batches:
            if batch.lane == "main":
                at = batch.slice.next
                unread[batch.stream] = sum(max(0, end - at.get(n, 0)) for n, end in batch.slice.ends.items())
        return unread

    # --- a run

    def run(
        self,
        stop: threading.Event,
        *,
        until_caught_up: bool = False,
        on_epoch: Callable[[EpochReport], None] | None = None,
        on_waiting: Callable[[Waiting | None], None] | None = None,
    ) -> None:
        """Run epochs until `stop` is set or, with `until_caught_up`, until a read found nothing.

        A second thread reads and a third one runs the row stage while this one writes the epoch before; three
        slices are held at most. A stop takes effect at the end of an epoch. Errors of every thread
        are raised here, except TransientError: then reading is tried again, with growing pauses.
        `on_waiting` is told each pause and, when it is over, None; it is called from the thread that waits.
        """
        tell = on_epoch or (lambda report: None)
        waiting = on_waiting or (lambda pause: None)
        while not stop.is_set():
            report = when_ready(partial(self._rebuild_step, None), stop, waiting)
            if report is None:
                break
            tell(report)
        ahead = ReadAhead(
            self._reader,
            self._positions(),
            rows=lambda: self._pace.rows,
            linger=lambda found, age: self._linger.seconds(found, age, self._settings.linger.total_seconds()),
            everything=until_caught_up,
            waiting=waiting,
        )
        ahead.start()
        try:
            while not stop.is_set():
                batches = ahead.next()
                if batches is None:
                    continue
                self._on_step("read")
                report = self._epoch(batches)
                if report is not None:
                    tell(report)
                if until_caught_up and not any(batch.moved for batch in batches):
                    return
        finally:
            ahead.close()

    def close(self) -> None:
        """Give back what the engine opened itself; the store and the logs stay open."""
        self._reader.close()
