"""Which tables a micro-batch computes with its first job, and which wait for a second one.

Which records are copies is known only when the driver has seen the addresses of all of them. Where a record
stays a record in the table, the driver takes copies out of what was computed. Where records are added up it
cannot: such tables are computed when it is known, unless so many micro-batches had no copy that the next one
is taken to have none. Where it has one after all, its tables are computed again: the answers are the same.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from headrace.engine.local.compute import Delta, bounds_of
from headrace.engine.spark.positions import lane_text
from headrace.sql.plan import PipelinePlan, TableClass, TablePlan

__all__ = ["Jobs", "Wanted", "removed"]

Wanted = Mapping[str, tuple[str, ...]]
"""By place, the tables to compute."""

_CALM = 3
_CALM_MOST = 96


@dataclass
class _Place:
    """A lane of a stream.

    tables     of the stream; with `separable` copies can be taken out of what each of them changes
    judged     records of it may turn out to be in no table: copies, and what came too late to redrive
    guessed    whether that none is may be supposed
    calm       micro-batches with records since the last such record; from `patience` on it is supposed
    """

    tables: tuple[str, ...]
    separable: bool
    judged: bool
    guessed: bool
    calm: int = 0
    patience: int = _CALM

    @property
    def first(self) -> bool:
        return not self.judged or self.separable or (self.guessed and self.calm >= self.patience)


class Jobs:
    """Says what the jobs of each micro-batch compute, and learns from every one of them."""

    def __init__(
        self, plan: PipelinePlan, lanes: Iterable[tuple[str, str]], outside: Collection[str]
    ) -> None:
        self._places: dict[str, _Place] = {}
        for stream, lane in lanes:
            mine = [one for one in plan.tables if one.kind is not TableClass.VIEW and stream in one.sources]
            # Files that executors wrote for nothing would lie about until the next run.
            written = any(one.name in outside for one in mine)
            self._places[lane_text((stream, lane))] = _Place(
                tuple(one.name for one in mine),
                separable=not written and all(map(_separable, mine)),
                judged=lane == "redrive" or bool(plan.streams[stream].stream.unique),
                guessed=lane == "main" and not written,
            )

    def first(self) -> Wanted:
        """Return what the first job of the next micro-batch computes."""
        return {name: place.tables for name, place in self._places.items() if place.tables and place.first}

    def is_kept(self, first: Wanted) -> bool:
        """Say whether rows should be kept for a second job; a redrive lane is too seldom worth it."""
        return any(
            place.tables and name not in first
            for name, place in self._places.items()
            if name.endswith("/main")
        )

    def second(self, first: Wanted, taken: Collection[str], places: Iterable[str]) -> Wanted:
        """Return what is still to be computed, or again, and learn from the micro-batch.

        `taken` are the places with timely rows that no table takes, `places` all that have timely rows.
        """
        due = {}
        for name in places:
            place = self._places[name]
            if place.tables and (name not in first or (name in taken and not place.separable)):
                due[name] = place.tables
            if name not in taken:
                place.calm += 1
                continue
            if name in due and name in first:
                place.patience = min(2 * place.patience, _CALM_MOST)
            place.calm = 0
        return due


def _separable(table: TablePlan) -> bool:
    """Say whether the rows of a record stay what they are when those of others are taken out."""
    return table.kind is TableClass.ROWS and not table.table.key


def removed(delta: Delta, taken: Mapping[int, tuple[int, ...]]) -> Delta:
    """Return a delta of a table of class rows, without a key, less the records at some addresses.

    `kept` and `failed` are those of the others; `taken` are addresses by partition.
    """
    mine = _numbers(delta.rows.column("_partition").to_numpy(), delta.rows.column("_offset").to_numpy())
    gone = np.isin(mine, np.concatenate([_numbers(number, offsets) for number, offsets in taken.items()]))
    failed = delta.failed
    if failed:
        addresses = {(number, offset) for number, offsets in taken.items() for offset in offsets}
        failed = tuple(row for row in failed if (row.partition, row.offset) not in addresses)
    if not gone.any():
        return replace(delta, failed=failed)
    rows = delta.rows.filter(pa.array(~gone))
    lowest, highest = bounds_of(rows.column("_time")) if rows.num_rows else (None, None)
    # UNNEST makes several rows of one record.
    kept = delta.kept - len(np.unique(mine[gone]))
    return replace(delta, rows=rows, kept=kept, failed=failed, lowest=lowest, highest=highest)


def _numbers(partitions: Any, offsets: Any) -> npt.NDArray[np.int64]:
    """Return addresses as one number each."""
    numbers: npt.NDArray[np.int64] = (np.asarray(partitions, np.int64) << 48) | np.asarray(offsets, np.int64)
    return numbers
