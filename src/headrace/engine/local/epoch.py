"""One epoch: a batch of records becomes one transaction of the store.

Everything that can fail because of a record is done before the transaction: outcomes, row parts, partial
aggregates. Inside it stand only merges of what was computed, the counts and the positions. Offsets and state
commit together. Apart, a crash between them would count the batch twice or not at all, and nothing would
notice.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from headrace.engine.local.closing import Closings
from headrace.engine.local.compute import Delta, EpochContext, TableWriter
from headrace.engine.local.frontier import advance, note_behind, settled, stream_frontier
from headrace.engine.local.labels import count_labels
from headrace.engine.local.minutes import fold, write_minutes
from headrace.engine.local.outcomes import Decided, decide, write_taken
from headrace.engine.local.queries import Queries
from headrace.engine.local.reader import Batch
from headrace.engine.local.settings import SAMPLED_RECORDS_MAX
from headrace.engine.local.tables import compute_tables, write_failed
from headrace.errors import IntegrityError, RefusedError
from headrace.sql.plan import PipelinePlan
from headrace.store import Store
from headrace.store.duplicates import RememberedKeys
from headrace.store.instants import micros_of, micros_of_length
from headrace.store.ledger import check_balance
from headrace.store.names import late_name, quoted
from headrace.store.progress import LaneProgress, Progress

__all__ = ["Epoch", "Stopwatch"]


class Stopwatch:
    """Adds up how long each stage of an epoch took."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Add the time of the block to the stage `name`."""
        begun = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - begun


class Epoch:
    """Takes the batches of one epoch through the store. Made anew for each; `progress` is a working copy."""

    def __init__(
        self,
        plan: PipelinePlan,
        store: Store,
        queries: Queries,
        writers: Mapping[str, TableWriter],
        keys: Mapping[str, RememberedKeys],
        closings: Closings,
        on_step: Callable[[str], None],
    ) -> None:
        self.plan = plan
        self.store = store
        self.connection = store.connection
        self._queries = queries
        self.progress: Progress = store.progress.copy()
        self.progress.epoch += 1
        self.rows: dict[str, int] = {}
        self.watch = Stopwatch()
        self._writers = writers
        self._keys = keys
        self._closings = closings
        self._on_step = on_step
        self._decided: list[Decided] = []
        self._before = {
            (stream, lane, partition, outcome): records
            for stream, lane, partition, place in store.progress.places()
            for outcome, records in place.counts.items()
        }
        self._deltas: list[tuple[str, Decided, Delta]] = []

    # --- before the transaction

    def take(self, batches: list[Batch]) -> None:
        """Move positions and frontiers over `batches`.

        Records get their outcomes, tables their partial rows.
        """
        for batch in batches:
            self._move(batch)
        for batch in sorted(batches, key=lambda batch: batch.lane):  # the main lane comes before the redrive
            if batch.result is not None:
                with self.watch.stage("duplicates"):
                    decided = self._decide(batch)
                with self.watch.stage("compute"):
                    self._compute(decided)
        self._on_step("duplicates")

    def _move(self, batch: Batch) -> None:
        places = self.progress.lane(batch.stream, batch.lane)
        records = batch.slice.records
        tolerance = micros_of_length(self.plan.streams[batch.stream].stream.future_tolerance)
        self._note_lost(batch, places)
        latest: dict[int, int] = {}
        if records.num_rows:
            found = records.group_by("partition").aggregate([("record_time", "max"), ("record_time", "min")])
            latest = dict(zip(found["partition"].to_pylist(), _micros(found["record_time_max"]), strict=True))
            first = dict(zip(found["partition"].to_pylist(), _micros(found["record_time_min"]), strict=True))
        for partition, position in batch.slice.next.items():
            place = places.get(partition)
            if place is None:
                place = places[partition] = LaneProgress(start=0, next=0)
            if position < place.next:
                raise IntegrityError(
                    f"stream '{batch.stream}', partition {partition}: the log gave position {position}, "
                    f"behind {place.next} where reading stood",
                    fix="keep the store; the log was replaced or cut: bring the old one back",
                )
            place.next = position
            place.gaps += batch.slice.gaps.get(partition, 0)
            place.lost += batch.lost.get(partition, 0)
            if partition in latest:
                place.first = first[partition] if place.first is None else place.first
                place.latest = max(place.latest or 0, latest[partition])
            if batch.lane == "main":
                note_behind(place, records, partition, tolerance, idle=partition in batch.slice.idle_since)
                advance(
                    place,
                    latest=latest.get(partition),
                    clock=batch.clock,
                    idle_since=batch.slice.idle_since.get(partition),
                )

    def _note_lost(self, batch: Batch, places: Mapping[int, LaneProgress]) -> None:
        """Where records are lost, note in the stream's tables before which record time those came.

        That is the time of the first record that is left; where none is, or the batch also holds some of
        before the loss, it is the log's time.
        """
        gone = {partition: lost for partition, lost in batch.lost.items() if lost}
        if not gone:
            return
        records, before = batch.slice.records.select(["partition", "offset", "record_time"]), 0
        for partition, lost in gone.items():
            left = records.filter(pc.equal(records["partition"], partition)).sort_by("offset").slice(0, 1)
            end = lost + batch.slice.gaps.get(partition, 0)
            end += places[partition].next if partition in places else 0
            known = bool(left.num_rows) and left["offset"][0].as_py() >= end
            before = max(before, _micros(left["record_time"])[0] if known else micros_of(batch.clock))
        for name, writer in self._writers.items():
            if batch.stream in writer.plan.sources:
                table = self.progress.tables[name]
                table.lost_before = max(table.lost_before or before, before)

    def _decide(self, batch: Batch) -> Decided:
        writers = [writer for writer in self._writers.values() if batch.stream in writer.plan.sources]
        main = next((one for one in self._decided if one.batch.stream == batch.stream), None)
        keys = self._keys.get(batch.stream)
        decided = decide(self.connection, batch, keys, self.progress, writers, main=main)
        decided.count(self.progress.lane(batch.stream, batch.lane))
        label = self.plan.streams[batch.stream].stream.label
        if label is not None:
            count_labels(self.progress, label, decided)
        self._decided.append(decided)
        return decided

    def _compute(self, decided: Decided) -> None:
        batch = decided.batch
        mine = {name: one for name, one in self._writers.items() if batch.stream in one.plan.sources}
        deltas = compute_tables(self._queries, mine, self.progress.tables, decided.accepted, batch.lane)
        self._deltas += [(name, decided, delta) for name, delta in deltas]

    # --- the transaction

    def commit(self, clock: datetime) -> None:
        """Write everything and commit.

        When this returns, the epoch is durable and `store.progress` is new.
        """
        with self.watch.stage("write"):
            self.connection.execute("BEGIN")
            try:
                self._write(clock)
                with self.watch.stage("commit"), self.store.ample():
                    self.connection.execute("COMMIT")
            except BaseException as error:
                self._roll_back()
                if _disk_is_full(error):
                    raise RefusedError(
                        f"the disk of the store {self.store.path} is full; nothing of the epoch was written",
                        fix="make room on it, then run again: reading goes on where the last epoch ended",
                    ) from error
                raise
        self.store.progress = self.progress
        self._closings.committed()
        self._on_step("commit")

    def _roll_back(self) -> None:
        self._closings.rolled_back()
        self.store.roll_back()

    def _write(self, clock: datetime) -> None:
        epoch = self.progress.epoch
        for name, decided, delta in self._deltas:
            context = EpochContext(self._queries, epoch, self.progress.tables[name])
            touched = self._writers[name].apply(context, delta)
            self.rows[name] = self.rows.get(name, 0) + touched
            self._closings.touched(name, delta, context.progress)
            batch = decided.batch
            write_failed(self.connection, name, batch.stream, batch.lane, delta, epoch)
            self._on_step(f"table:{name}")
        for decided in self._decided:
            self._write_outcomes(decided)
        for name, keys in self._keys.items():
            frontier = self.stream_frontier(name)
            stream = self.plan.streams[name].stream
            lateness = micros_of_length(stream.allowed_lateness)
            horizon = lateness + micros_of_length(stream.future_tolerance)
            if frontier is not None and settled(self.progress, name, frontier, horizon):
                keys.forget(frontier - horizon, step=max(lateness // 4, 1_000_000))
        self._on_step("outcomes")
        self._closings.close(self.connection, self.progress)
        self._on_step("closings")
        fold(self.connection, epoch)
        check_balance(self.progress)
        self.store.save(self.progress)
        records = sum(decided.batch.slice.records.num_rows for decided in self._decided)
        seconds = sum(self.watch.seconds.values())
        self._queries.write(
            "INSERT INTO _headrace.epochs VALUES ($1, make_timestamptz($2), $3, $4)",
            *(epoch, micros_of(clock), records, seconds),
        )
        self._on_step("ledger")

    def _write_outcomes(self, decided: Decided) -> None:
        batch, epoch = decided.batch, self.progress.epoch
        result = batch.result
        assert result is not None  # noqa: S101 - only batches with records are decided
        keys = self._keys.get(batch.stream)
        if keys is not None and decided.accepted.num_rows:
            keys.remember(decided.accepted, redriven=batch.lane == "redrive")
        if result.late.num_rows:
            self._write_late(batch.stream, result.late)
        if result.dead.num_rows:
            self._queries.put("_dead", result.dead)
            self._queries.write(
                'INSERT INTO _headrace.dead_letters SELECT $1, $2, partition, "offset", '
                'record_time, outcome, reasons, event_time, "key", "value", headers, $3 FROM _dead',
                *(batch.stream, batch.lane, epoch),
            )
        if decided.decision is not None and decided.decision.sample is not None:
            self._queries.put("_sample", decided.decision.sample)
            self._queries.write(
                "INSERT INTO _headrace.duplicates SELECT $1, $2, _partition, _offset, "
                "_event_time, _value, conflicting, $3 FROM _sample",
                *(batch.stream, batch.lane, epoch),
            )
        write_addresses(self.connection, batch.stream, decided.addresses, epoch)
        write_taken(self.connection, decided)
        write_minutes(self._queries, decided)

    def _write_late(self, stream: str, late: pa.Table) -> None:
        names = [quoted(column.name) for column in self.plan.streams[stream].columns]
        listed = ", ".join([*names, "_partition", "_offset", "_record_time", "_event_time"])
        self._queries.put("_late", late)
        self._queries.write(
            f"INSERT INTO {late_name(stream)} ({listed}, _epoch) SELECT {listed}, $1 FROM _late",
            self.progress.epoch,
        )

    # --- afterwards

    def records(self) -> dict[str, int]:
        """Return how many records of each stream were in this epoch."""
        counted = dict.fromkeys(self.plan.streams, 0)
        for decided in self._decided:
            counted[decided.batch.stream] += decided.batch.slice.records.num_rows
        return counted

    def outcomes(self) -> dict[str, dict[str, int]]:
        """Return how many records of each stream got which outcome in this epoch."""
        counted: dict[str, dict[str, int]] = {name: {} for name in self.plan.streams}
        before = self._before
        for stream, lane, partition, place in self.progress.places():
            for outcome, records in place.counts.items():
                more = records - before.get((stream, lane, partition, outcome), 0)
                if more:
                    counted[stream][outcome] = counted[stream].get(outcome, 0) + more
        return counted

    def times(self) -> dict[str, list[tuple[int, int]]]:
        """Return the times of some accepted records of each stream's main lane; see `EpochReport.times`."""
        found: dict[str, list[tuple[int, int]]] = {}
        for decided in self._decided:
            rows = decided.accepted
            if decided.batch.lane != "main" or not rows.num_rows:
                continue
            step = max(1, -(-rows.num_rows // SAMPLED_RECORDS_MAX))
            places = pa.array(range(0, rows.num_rows, step), pa.int64())
            few = rows.select(["_record_time", "_event_time"]).take(places)
            columns = (_micros(few.column(name)) for name in ("_record_time", "_event_time"))
            found[decided.batch.stream] = list(zip(*columns, strict=True))
        return found

    def parents(self) -> dict[str, list[str]]:
        """Return the traces in which some records were produced; see `EpochReport.parents`."""
        found: dict[str, list[str]] = {}
        for decided in self._decided:
            records = decided.batch.slice.records
            if "headers" not in records.column_names:  # Spark's executors keep the records
                continue
            headers = records.column("headers").drop_null()
            step = max(1, -(-len(headers) // SAMPLED_RECORDS_MAX))
            few = headers.take(pa.array(range(0, len(headers), step), pa.int64())).to_pylist()
            texts = [each["value"] for one in few for each in one if each["key"] == "traceparent"]
            found.setdefault(decided.batch.stream, []).extend(
                text.decode("ascii", "replace") for text in texts if text is not None
            )
        return found

    def stream_frontier(self, stream: str) -> int | None:
        """Return how far a stream has come, in microseconds."""
        return stream_frontier(self.progress, stream)


def _disk_is_full(error: BaseException) -> bool:
    """Whether DuckDB says so; it has no class of its own for it, and passes on what the system said."""
    return os.strerror(errno.ENOSPC) in str(error)


def write_addresses(connection: Any, stream: str, addresses: list[tuple[int, int]], epoch: int) -> None:
    """Remember which addresses redriven records stand for, inside a transaction."""
    if addresses:
        connection.executemany(
            f"INSERT INTO _headrace.redriven VALUES (?, ?, ?, {epoch})",
            [[stream, *address] for address in addresses],
        )


def _micros(column: pa.ChunkedArray) -> list[int]:
    values: list[int] = column.cast(pa.int64()).to_pylist()
    return values
