"""Reads slices of the logs and runs the row stage over them; the same way for a run, a step and a rebuild."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

import numpy as np
import pyarrow as pa

from headrace.engine.local.apart import Apart
from headrace.engine.local.settings import EngineSettings
from headrace.errors import RefusedError, TransientError
from headrace.log.protocol import Log, Slice
from headrace.rows.framing import Framing
from headrace.rows.parallel import ParallelStage
from headrace.rows.result import RowResult
from headrace.sql.plan import PipelinePlan

__all__ = ["FEW", "LANES", "Batch", "Positions", "Reader"]

LANES = ("main", "redrive")

FEW = 5_000
"""After a read that gave less than this, nothing is read ahead: what arrives meanwhile shares an epoch."""

_REDRIVE_SECONDS = 0.5

Positions = dict[tuple[str, str], dict[int, int]]
"""Per (stream, lane) and partition, the offset to read next."""


@dataclass
class Batch:
    """What one read of one lane gave.

    And what the row stage made of it. `clock` is the log's, before the read.
    """

    stream: str
    lane: str
    slice: Slice
    clock: datetime
    result: RowResult | None = None
    lost: Mapping[int, int] = field(default_factory=dict)
    seconds_read: float = 0.0
    seconds_rows: float = 0.0

    @property
    def moved(self) -> bool:
        """Whether a position moved."""
        return self.slice.records.num_rows > 0 or any(self.slice.gaps.values()) or any(self.lost.values())


class Reader:
    """Reads all lanes of all streams. One thread looks at a time, and one decodes."""

    def __init__(
        self,
        plan: PipelinePlan,
        logs: Mapping[str, Log],
        settings: EngineSettings,
        framings: Mapping[str, Framing],
    ) -> None:
        self._plan = plan
        self._settings = settings
        self.epoch_bytes_max = settings.epoch_bytes_max
        """The most bytes that a look takes of a lane; another thread may set it."""
        self.logs: dict[tuple[str, str], Log] = {}
        self._redrive_after: dict[str, float] = {}
        self._framings = framings
        for name in plan.streams:
            self.logs[name, "main"] = logs[name]
            self.logs[name, "redrive"] = logs[name].lane("redrive")
        self._stages = {
            name: ParallelStage(stream, framings.get(name), threads=settings.threads)
            for name, stream in plan.streams.items()
        }

    @property
    def streams(self) -> tuple[str, ...]:
        """The streams that are read."""
        return tuple(self._stages)

    def read(
        self,
        positions: Positions,
        *,
        rows_max: int,
        wait: timedelta,
    ) -> list[Batch]:
        """Look and decode at once."""
        found = self.look(positions, rows_max=rows_max, wait=wait)
        self.decode(found)
        return found

    def decode(self, batches: list[Batch]) -> None:
        """Run the row stage over what was read. One thread does it at a time; another one may look."""
        for batch in batches:
            self._decode(batch)

    def look(
        self,
        positions: Positions,
        *,
        rows_max: int,
        wait: timedelta,
        linger: Callable[[int, float], bool] | None = None,
        apart: Apart | None = None,
    ) -> list[Batch]:
        """Read every lane once, up to `rows_max` records each; wait for the first record when there is none.

        With `linger`, a find that is not full may be followed by that pause and a second look: it is told how
        many records were found and how many seconds ago the first one was appended, and returns whether to
        look again. With `apart`, a stream whose log does not answer is left to it, and what is found may be
        nothing.
        """
        found: dict[tuple[str, str], Batch] = {}
        if apart is not None:
            found = {(batch.stream, batch.lane): batch for batch in apart.taken()}
        for place in self._due(everything=not wait):
            if place in found:
                continue
            batch = self._try(place, positions[place], rows_max, timedelta(0), apart)
            if batch is None:
                continue
            found[place] = batch
            if place[1] == "redrive" and batch.moved:
                self._redrive_after.pop(place[0], None)  # there may be more, so the next read looks again
        if wait and not any(batch.moved for batch in found.values()):
            found |= self._wait_for_first(positions, rows_max, wait, apart)
            if apart is not None and not found:
                found = {(batch.stream, batch.lane): batch for batch in apart.taken(wait.total_seconds())}
        sizes = [batch.slice.records.num_rows for batch in found.values()]
        # After a full slice there is more: nothing is waited for.
        full = max(sizes, default=0) >= rows_max
        if linger is not None and any(sizes) and not full and linger(sum(sizes), _age(found.values())):
            for place, batch in found.items():
                if place[1] == "main":
                    room = rows_max - batch.slice.records.num_rows
                    later = self._try(place, batch.slice.next, room, timedelta(0), apart)
                    found[place] = batch if later is None else _joined(batch, later)
        return list(found.values())

    def _wait_for_first(
        self, positions: Positions, rows_max: int, wait: timedelta, apart: Apart | None
    ) -> dict[tuple[str, str], Batch]:
        """Each stream gets its share of the wait, so that a quiet one delays no other for long."""
        found = {}
        for name in self._stages:
            place = (name, "main")
            batch = self._try(place, positions[place], rows_max, wait / len(self._stages), apart)
            if batch is not None:
                found[place] = batch
                if batch.moved:
                    break
        return found

    def _try(
        self,
        place: tuple[str, str],
        positions: Mapping[int, int],
        rows_max: int,
        wait: timedelta,
        apart: Apart | None,
    ) -> Batch | None:
        """Look at one lane; None when its stream is tried apart."""
        if apart is None:
            return self._look(place, positions, rows_max=rows_max, wait=wait)
        if place[0] in apart:
            return None
        try:
            return self._look(place, positions, rows_max=rows_max, wait=wait)
        except TransientError as error:
            at = dict(positions)
            apart.put(place[0], error, lambda: self._look(place, at, rows_max=rows_max, wait=timedelta(0)))
            return None

    def _due(self, *, everything: bool) -> list[tuple[str, str]]:
        """Redrive lanes are looked at twice a second at most: they are empty almost always.

        A caller that does not wait asks what is there now, so `everything` is looked at.
        """
        now = time.monotonic()
        due = []
        for place in self.logs:
            if place[1] == "main":
                due.append(place)
            elif everything or now >= self._redrive_after.get(place[0], 0.0):
                self._redrive_after[place[0]] = now + _REDRIVE_SECONDS
                due.append(place)
        return due

    def read_lane(self, place: tuple[str, str], positions: Mapping[int, int], *, rows_max: int) -> Batch:
        """Read one lane without waiting, and run the row stage over what came."""
        batch = self._look(place, positions, rows_max=rows_max, wait=timedelta(0))
        self._decode(batch)
        return batch

    def read_until(
        self, place: tuple[str, str], positions: Mapping[int, int], goal: Mapping[int, int], *, rows_max: int
    ) -> Batch:
        """Read one lane from `positions`, but nothing from `goal` on.

        For computing again what was read before.
        """
        # A partition that is done is asked for at its end, so that what is new there cannot crowd out the
        # others.
        ends = {held.partition: held.end for held in self.logs[place].partitions()}
        asked = {n: end if positions.get(n, 0) >= goal.get(n, 0) else positions[n] for n, end in ends.items()}
        batch = self._look(place, asked, rows_max=rows_max, wait=timedelta(0))
        records = batch.slice.records
        limits = np.array([goal.get(n, 0) for n in range(max(ends, default=-1) + 1)], dtype=np.int64)
        known = records.column("offset").to_numpy() < limits[records.column("partition").to_numpy()]
        batch.slice = replace(batch.slice, records=records.filter(pa.array(known)))
        self._decode(batch)
        return batch

    def _decode(self, batch: Batch) -> None:
        begun = time.perf_counter()
        # One that has a result was decoded before another one had to wait for a registry.
        if batch.slice.records.num_rows and batch.result is None:
            batch.result = self._stages[batch.stream].run(batch.slice.records, lane=batch.lane)
            # The bytes are half of what a slice weighs, and dead letters have theirs.
            batch.slice = replace(batch.slice, records=batch.slice.records.drop_columns(["value"]))
        batch.seconds_rows = time.perf_counter() - begun

    def _look(
        self, place: tuple[str, str], positions: Mapping[int, int], *, rows_max: int, wait: timedelta
    ) -> Batch:
        log = self.logs[place]
        begun = time.perf_counter()
        clock = log.now()
        lost: dict[int, int] = {}
        while True:
            asked = {n: at + lost.get(n, 0) for n, at in positions.items()}
            try:
                found = self._slice(log, asked, rows_max, wait)
                break
            except RefusedError:
                if self._settings.on_data_loss == "stop":
                    raise
                starts = {kept.partition: kept.start for kept in log.partitions()}
                gone = {n: starts[n] - at for n, at in positions.items() if n in starts and starts[n] > at}
                # Retention may move again before the next read. What is refused although nothing more is
                # gone is refused for another reason.
                if gone == lost:
                    raise
                lost = gone
        framing = self._framings.get(place[0])
        if framing is not None and found.records.num_rows:
            # Here and not in the row stage, which all streams share: who waits for a registry waits alone.
            framing.prepare(found.records)
        return Batch(place[0], place[1], found, clock, lost=lost, seconds_read=time.perf_counter() - begun)

    def _slice(self, log: Log, positions: Mapping[int, int], rows_max: int, wait: timedelta) -> Slice:
        return log.read(positions, rows_max=rows_max, bytes_max=self.epoch_bytes_max, wait=wait)

    def close(self) -> None:
        """Give back the row stages; the logs belong to whoever opened them."""
        for stage in self._stages.values():
            stage.close()


def _age(batches: Iterable[Batch]) -> float:
    """Return for how many seconds the oldest record of what was read has been in its log."""
    ages: list[float] = [
        (batch.clock - batch.slice.records.column("record_time")[0].as_py()).total_seconds()
        for batch in batches
        if batch.slice.records.num_rows
    ]
    return max(ages)


def _joined(first: Batch, later: Batch) -> Batch:
    """Return one batch of two that follow each other."""
    gaps = dict(first.slice.gaps)
    for partition, count in later.slice.gaps.items():
        gaps[partition] = gaps.get(partition, 0) + count
    records = pa.concat_tables([first.slice.records, later.slice.records])
    joined = Slice(records, later.slice.next, later.slice.idle_since, gaps, later.slice.ends)
    seconds = first.seconds_read + later.seconds_read
    lost = dict(first.lost)
    for partition, count in later.lost.items():
        lost[partition] = lost.get(partition, 0) + count
    return Batch(first.stream, first.lane, joined, later.clock, lost=lost, seconds_read=seconds)
