"""Computes tables again from the log, as far back as it reaches, while the other tables keep their state.

It runs before new records are read, in chunks; each is one transaction. The tables see the same records with
the same outcomes as the first time: the row stage is a function of the record, and which of its rows were
copies, expired or set aside the store has written down. Where rules were changed since, a record that was
accepted and is refused by today's is missing from the table; how many those are is told at the end.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from headrace.engine.local.compute import Delta, EpochContext, TableWriter
from headrace.engine.local.epoch import Stopwatch
from headrace.engine.local.outcomes import accepted_again, refused_since
from headrace.engine.local.queries import Queries
from headrace.engine.local.reader import LANES, Batch, Reader
from headrace.engine.local.settings import EngineSettings, EpochReport
from headrace.engine.local.start import first_known, mark_start, needed_from
from headrace.engine.local.tables import compute_tables, write_failed
from headrace.sql.plan import PipelinePlan, TableClass
from headrace.store import Store
from headrace.store.instants import micros_of
from headrace.store.progress import Progress, RebuildProgress

__all__ = ["Rebuild"]


class Rebuild:
    """The tables that are being computed again.

    `pending` until all have come to the positions of the store.
    """

    def __init__(
        self,
        plan: PipelinePlan,
        store: Store,
        queries: Queries,
        reader: Reader,
        writers: Mapping[str, TableWriter],
        settings: EngineSettings,
        on_step: Callable[[str], None],
    ) -> None:
        self._plan = plan
        self._store = store
        self._queries = queries
        self._reader = reader
        self._writers = writers
        self._settings = settings
        self._on_step = on_step

    @property
    def pending(self) -> tuple[str, ...]:
        """The tables that are not there yet."""
        return tuple(name for name, table in self._store.progress.tables.items() if table.rebuild is not None)

    def needed(self, stream: str, lane: str) -> dict[int, int]:
        """Return the least offset of every partition that is still needed, by reading or by a rebuild."""
        names = [name for name in self.pending if self._writers[name].plan.sources[0] == stream]
        return needed_from(self._store.progress, stream, lane, names)

    def step(self, rows_max: int) -> EpochReport:
        """Compute one chunk of the tables that stand together, and write it in one transaction."""
        names = self._together()
        stream = self._writers[names[0]].plan.sources[0]
        progress = self._store.progress.copy()
        progress.epoch += 1
        watch = Stopwatch()
        place = self._place(names, progress)
        lane = next((lane for lane in LANES if not _reached(place, lane)), None)
        batch: Batch | None = None
        deltas: list[tuple[str, Delta]] = []
        missing: dict[str, int] = {}
        floors = {name: progress.tables[name].floor for name in names}
        if lane is not None:
            goal = place.goal[lane]
            with watch.stage("read"):
                batch = self._reader.read_until((stream, lane), place.next[lane], goal, rows_max=rows_max)
            if any(batch.lost.values()):
                self._mark_lost(names, batch, progress)
            with watch.stage("compute"):
                deltas = self._compute(names, batch, progress)
            place.next[lane] = {n: min(at, goal.get(n, at)) for n, at in batch.slice.next.items()}
        with watch.stage("write"), self._store.transaction():
            self._cut(floors, progress)
            rows = self._write(deltas, batch, progress)
            if all(_reached(place, lane) for lane in LANES):
                missing = self._end(names, progress)
            self._store.save(progress)
            self._on_step("rebuild")
        self._store.progress = progress
        self._on_step("rebuilt")
        return EpochReport(
            epoch=progress.epoch,
            records={stream: 0 if batch is None else batch.slice.records.num_rows},
            outcomes={},
            rows=rows,
            seconds=dict(watch.seconds),
            frontiers={},
            rebuilding=names,
            missing=missing,
        )

    def _together(self) -> tuple[str, ...]:
        """Return tables over one stream that stand at the same place: one reading serves them all."""
        tables = self._store.progress.tables
        first = self.pending[0]
        stream = self._writers[first].plan.sources[0]
        return tuple(
            name
            for name in self.pending
            if self._writers[name].plan.sources[0] == stream
            and _stands(tables[name].rebuild) == _stands(tables[first].rebuild)
        )

    def _place(self, names: tuple[str, ...], progress: Progress) -> RebuildProgress:
        """Return where the tables stand, as a copy whose positions they share."""
        stands = progress.tables[names[0]].rebuild
        assert stands is not None  # noqa: S101 - they are pending
        following = {lane: dict(positions) for lane, positions in stands.next.items()}
        for name in names:
            table = progress.tables[name]
            assert table.rebuild is not None  # noqa: S101 - they are pending
            table.rebuild = replace(table.rebuild, next=following)
        return replace(stands, next=following)

    # --- before the transaction

    def _compute(self, names: tuple[str, ...], batch: Batch, progress: Progress) -> list[tuple[str, Delta]]:
        if batch.result is None:
            return []
        accepted = accepted_again(self._store.connection, batch)
        refused = refused_since(self._store.connection, batch)
        for name in names:
            stands = progress.tables[name].rebuild
            assert stands is not None  # noqa: S101 - they are pending
            stands.refused += refused
        writers = {name: self._writers[name] for name in names}
        return compute_tables(self._queries, writers, progress.tables, accepted, batch.lane)

    def _mark_lost(self, names: tuple[str, ...], batch: Batch, progress: Progress) -> None:
        """Write down what the tables cannot know since retention took records that were not read yet."""
        first = first_known(self._reader.logs[batch.stream, "main"])
        if batch.lane != "main" or first is None:
            first = micros_of(batch.clock)
        for name in names:
            table = progress.tables[name]
            mark_start(self._plan, self._writers[name].plan, table, first)
            if table.rebuild is not None:  # what lies between the kept windows and the new ones is missing
                table.rebuild = replace(table.rebuild, kept=False, floor=None)

    # --- the transaction

    def _cut(self, floors: Mapping[str, int | None], progress: Progress) -> None:
        """Take out the windows that a floor which rose has made partial; those below the old floor stay."""
        for name, before in floors.items():
            plan, floor = self._writers[name].plan, progress.tables[name].floor
            if floor != before and plan.kind is TableClass.WINDOWED:
                self._store.delete_windows(plan, before, floor)

    def _write(
        self, deltas: list[tuple[str, Delta]], batch: Batch | None, progress: Progress
    ) -> dict[str, int]:
        written: dict[str, int] = {}
        for name, delta in deltas:
            assert batch is not None  # noqa: S101 - deltas come of it
            context = EpochContext(self._queries, progress.epoch, progress.tables[name])
            written[name] = self._writers[name].apply(context, delta)
            write_failed(self._store.connection, name, batch.stream, batch.lane, delta, progress.epoch)
        return written

    def _end(self, names: tuple[str, ...], progress: Progress) -> dict[str, int]:
        """Say that the tables are there; return how many accepted records each was computed without."""
        missing = {}
        for name in names:
            table = progress.tables[name]
            assert table.rebuild is not None  # noqa: S101 - they are pending
            if table.rebuild.kept:
                table.floor = table.rebuild.floor
            if table.rebuild.refused:
                missing[name] = table.rebuild.refused
            table.rebuild = None
        return missing


def _stands(place: RebuildProgress | None) -> object:
    return None if place is None else (place.next, place.goal)


def _reached(place: RebuildProgress, lane: str) -> bool:
    goal = place.goal.get(lane, {})
    return all(place.next.get(lane, {}).get(partition, 0) >= end for partition, end in goal.items())
