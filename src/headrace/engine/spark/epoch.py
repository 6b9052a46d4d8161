"""An epoch whose tables were computed elsewhere: the parts come from executors and are added up here."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

import pyarrow as pa
import pyarrow.compute as pc

from headrace.engine.local.compute import Delta
from headrace.engine.local.epoch import Epoch
from headrace.engine.local.outcomes import Decided
from headrace.engine.local.reader import Batch
from headrace.engine.spark.combining import combined
from headrace.engine.spark.computing import COUNTS, Change, Taken
from headrace.engine.spark.jobs import removed
from headrace.engine.spark.positions import lane_text
from headrace.errors import TransientError

__all__ = ["SparkEpoch"]


class SparkEpoch(Epoch):
    """Takes one micro-batch through the store: `judge`, then `add` what tables change, then `commit`."""

    def judge(self, batches: Iterable[Batch]) -> Taken:
        """Move positions and frontiers, give outcomes; return which timely rows no table takes."""
        taken: dict[str, dict[int, tuple[int, ...]]] = {}
        found = list(batches)
        for batch in found:
            self._move(batch)
        for batch in sorted(found, key=lambda batch: batch.lane):  # the main lane comes before the redrive
            if batch.result is not None:
                with self.watch.stage("duplicates"):
                    decided = self._decide(batch)
                gone = _taken(decided)
                if gone:
                    taken[lane_text((batch.stream, batch.lane))] = gone
        self._on_step("duplicates")
        return taken

    def add(self, changes: Iterable[tuple[str, Change]], inside: Taken) -> None:
        """Add up what the parts of the batch change in each table; `changes` name the lane they come from.

        `inside` are the rows that no table takes and that were computed with the others: see `removed`.
        """
        found: dict[tuple[str, str], list[Delta]] = {}
        accepted: Counter[tuple[str, str]] = Counter()
        for place, change in changes:
            found.setdefault((place, change.table), []).append(change.delta)
            accepted[place, change.table] += change.counts["accepted"]
            table = self.progress.tables[change.table]
            for count in COUNTS:
                setattr(table, count, getattr(table, count) + change.counts[count])
        places = {lane_text((one.batch.stream, one.batch.lane)): one for one in self._decided}
        with self.watch.stage("compute"):
            for (place, name), deltas in found.items():
                delta = combined(self._queries, self._writers[name].plan, deltas)
                if place in inside:
                    accepted[place, name] -= sum(map(len, inside[place].values()))
                    delta = self._without(name, delta, inside[place])
                self._deltas.append((name, places[place], delta))
        for place, decided in places.items():
            self._require_whole(place, decided, accepted)

    def _without(self, name: str, delta: Delta, taken: Mapping[int, tuple[int, ...]]) -> Delta:
        """Return a delta without what no table takes, and take that out of the table's counts."""
        found, table = removed(delta, taken), self.progress.tables[name]
        records, kept = sum(map(len, taken.values())), delta.kept - found.kept
        failed = len(delta.failed) - len(found.failed)
        table.accepted -= records
        table.kept -= kept
        table.failed -= failed
        table.filtered -= records - kept - failed
        return found

    def _require_whole(self, place: str, decided: Decided, accepted: Counter[tuple[str, str]]) -> None:
        """Raise TransientError unless every table was given each accepted row once.

        Spark reads a range again when what it had of it is lost, and may be given less then.
        """
        for name, writer in self._writers.items():
            rows = decided.accepted.num_rows
            if decided.batch.stream in writer.plan.sources and accepted[place, name] != rows:
                raise TransientError(
                    f"{place}: table '{name}' was given {accepted[place, name]:,} of {rows:,} accepted rows",
                    fix="nothing was written; the micro-batch is computed again",
                )


def _taken(decided: Decided) -> dict[int, tuple[int, ...]]:
    mask = decided.duplicate | decided.expired
    if not mask.any() or decided.batch.result is None:
        return {}
    rows = decided.batch.result.timely.select(["_partition", "_offset"]).filter(pa.array(mask))
    partitions = pc.unique(rows.column("_partition")).to_pylist()
    return {
        number: tuple(rows.filter(pc.equal(rows.column("_partition"), number)).column("_offset").to_pylist())
        for number in partitions
    }
