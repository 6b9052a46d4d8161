"""Computes tables again from the log, as far back as it reaches, while the other tables keep their state.

It runs before new records are read, in chunks; each is one transaction. The tables see the same records
with the
same outcomes as the first time: the row stage is a function of the record, and copies are found again by a
memory
of their own, that begins empty at the log's start.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from headrace.engine.local.compute import EpochContext, TableWriter, compute_delta
from headrace.engine.local.epoch import Stopwatch, narrowed_rows, with_lane, write_addresses
from headrace.engine.local.outcomes import decide
from headrace.engine.local.queries import Queries
from headrace.engine.local.reader import LANES, Batch, Reader
from headrace.engine.local.settings import EngineSettings, EpochReport
from headrace.engine.local.start import first_known, mark_start
from headrace.sql.plan import PipelinePlan
from headrace.store import Store
from headrace.store.duplicates import RememberedKeys
from headrace.store.names import keys_name
from headrace.store.progress import Progress, RebuildProgress
from headrace.store.schema import keys_relation

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
        self._keys: dict[str, RememberedKeys] = {}

    @property
    def pending(self) -> tuple[str, ...]:
        """The tables that are not there yet."""
        return tuple(name for name, table in self._store.progress.tables.items() if table.rebuild is not None)

    def step(self, rows_max: int) -> EpochReport:
        """Compute one chunk of the tables that stand together, in one transaction."""
        names = self._together()
        stream = self._writers[names[0]].plan.sources[0]
        progress = self._store.progress.copy()
        progress.epoch += 1
        connection = self._store.connection
        watch = Stopwatch()
        place = self._begin(names, stream, progress)
        lane = next((lane for lane in LANES if not _reached(place, lane)), None)
        batch: Batch | None = None
        rows: dict[str, int] = {}
        with self._store.transaction():
            relation = keys_name(stream, rebuilding="rebuild")
            unique = self._plan.streams[stream].stream.unique
            if unique and stream not in self._keys:
                connection.execute(keys_relation(relation))
                self._keys[stream] = RememberedKeys(connection, relation, unique)
            if lane is not None:
                with watch.stage("read"):
                    batch = self._reader.read_until(
                        (stream, lane), place.next[lane], place.goal[lane], rows_max=rows_max
                    )
                if batch.result is not None:
                    rows = self._write(names, batch, progress)
                place.next[lane] = {
                    n: min(at, place.goal[lane].get(n, at)) for n, at in batch.slice.next.items()
                }
            if all(_reached(place, lane) for lane in LANES):
                self._end(names, stream, relation, progress)
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
        )

    def _together(self) -> tuple[str, ...]:
        """Return tables over one stream that stand at the same place: one reading serves them all."""
        tables = self._store.progress.tables
        first = self.pending[0]
        stream = self._writers[first].plan.sources[0]
        return tuple(
            name
            for name in self.pending
            if self._writers[name].plan.sources[0] == stream and tables[name].rebuild == tables[first].rebuild
        )

    def _begin(self, names: tuple[str, ...], stream: str, progress: Progress) -> RebuildProgress:
        """Return where the tables stand, as a copy that they share.

        At the very start that is the log's start.
        """
        stands = progress.tables[names[0]].rebuild
        assert stands is not None  # noqa: S101 - they are pending
        place = RebuildProgress(
            {lane: dict(positions) for lane, positions in stands.next.items()},
            {lane: dict(positions) for lane, positions in stands.goal.items()},
        )
        if not place.next:
            for lane in place.goal:
                log = self._reader.logs[stream, lane]
                place.next[lane] = {held.partition: held.start for held in log.partitions()}
            first = first_known(self._reader.logs[stream, "main"])
            for name in names:
                if first is not None:
                    mark_start(self._plan, self._writers[name].plan, progress.tables[name], first)
        for name in names:
            progress.tables[name].rebuild = place
        return place

    def _write(self, names: tuple[str, ...], batch: Batch, progress: Progress) -> dict[str, int]:
        connection = self._store.connection
        keys = self._keys.get(batch.stream)
        decided = decide(connection, batch, keys, progress, [], redriven=f"{batch.stream}__rebuild")
        written: dict[str, int] = {}
        accepted = decided.accepted
        if not accepted.num_rows:
            return written
        rows = with_lane(accepted, batch.lane)
        for name in names:
            writer, table = self._writers[name], progress.tables[name]
            fitting = narrowed_rows(writer, rows, table.floor, table.retired_through)
            self._queries.batch(fitting)
            delta = compute_delta(self._queries, writer, fitting)
            table.accepted += rows.num_rows
            table.kept += delta.kept
            table.failed += len(delta.failed)
            table.filtered += rows.num_rows - delta.kept - len(delta.failed)
            written[name] = writer.apply(EpochContext(self._queries, progress.epoch, table), delta)
        if keys is not None:
            keys.remember(accepted)
        write_addresses(connection, f"{batch.stream}__rebuild", decided.addresses, progress.epoch)
        return written

    def _end(self, names: tuple[str, ...], stream: str, relation: str, progress: Progress) -> None:
        for name in names:
            progress.tables[name].rebuild = None
        connection = self._store.connection
        connection.execute(f"DROP TABLE IF EXISTS {relation}")
        connection.execute("DELETE FROM _headrace.redriven WHERE stream = ?", [f"{stream}__rebuild"])
        self._keys.pop(stream, None)


def _reached(place: RebuildProgress, lane: str) -> bool:
    goal = place.goal.get(lane, {})
    return all(place.next.get(lane, {}).get(partition, 0) >= end for partition, end in goal.items())
