"""Sorts the records of a part of the log into those that a group is made of, and those beside it."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from headrace.operate.record_groups import Address, RecordGroups, addresses_of
from headrace.operate.redrive import LANE
from headrace.web.page.scanning import Before, Budget, Outcomes, outcomes_between
from headrace.web.page.tracing_group import Group
from headrace.web.page.tracing_samples import Heap, Texts

if TYPE_CHECKING:
    from headrace.log import Log
    from headrace.rows import RowStage

__all__ = ["GroupSearch", "rows_from"]

_STAYS = "Each counts where it was given back; dead letters among them are told below, too"


class GroupSearch:
    """Sorts outcomes of records into those of a group, and those beside it."""

    def __init__(self, group: Group, groups: RecordGroups, before: Before) -> None:
        self._group = group
        self._groups = groups
        self._before = before
        self._seen: set[int] = set()
        self._unplaced = 0
        self.told: set[Address] = set()
        """Where records of the main lane are from that were set aside and are told as that."""
        self.kept, self._copies, self._back, self._aside = Heap(), Heap(), Heap(), Heap()
        self._others, self._filtered, self._failed = Heap(), Heap(), Heap()

    def main(
        self, log: Log, stage: RowStage, times: tuple[datetime, datetime] | None, budget: Budget
    ) -> None:
        """Look through the records that can be in the group by their record times; None: in all."""
        at = self._group.status.positions(log.stream)
        for each in outcomes_between(log, stage, at, times, budget, seen=self._seen, before=self._before):
            self._sort(each, log.stream)

    def redriven(self, log: Log, stage: RowStage, stream: str, budget: Budget) -> None:
        """Look through what was given back; its record times say nothing."""
        at = self._group.status.positions(stream, LANE)
        if not any(at.values()) or budget.spent:
            return
        lane = log.lane(LANE)
        for each in outcomes_between(
            lane, stage, at, None, budget, lane=LANE, seen=self._seen, before=self._before
        ):
            self._sort(each, f"{stream}@{LANE}")

    def left_out(self) -> list[dict[str, Any]]:
        """Return what the scan found beside the group's own records."""
        kinds = (
            ("duplicate", "copies of records of this group; each counts once", self._copies),
            ("given back", "given back, and counted already or too old by then", self._back),
            ("set aside", "when they were read; the rules of today would take them. " + _STAYS, self._aside),
            ("failed", "the query failed on them", self._failed),
            ("other keys", "of the same time, in other rows", self._others),
            ("filtered", "of the same time; the query's WHERE leaves them out", self._filtered),
        )
        return [
            {"what": what, "why": reason, "records": heap.records, "samples": heap.samples}
            for what, reason, heap in kinds
            if heap.records
        ]

    def matching(self, rows: pa.Table, lane: str) -> pa.Table:
        """Return those of `rows` (as `RowResult.timely`) that the row part puts into the group."""
        within = self._within(rows)
        return rows_from(within, self._groups.sort(within, lane).inside.get(0, ()))

    def _sort(self, found: Outcomes, place: str) -> None:
        texts = Texts(found.records)
        within = self._within(found.accepted)
        belong = self._groups.sort(within, found.lane)
        mine = belong.inside.get(0, [])
        told = {*mine, *belong.others, *belong.failed}
        self.kept.add(rows_from(within, mine), texts, place)
        self._others.add(rows_from(within, belong.others), texts, place)
        self._failed.add(rows_from(within, belong.failed), texts, place)
        rest = [each for each in addresses_of(within) if each not in told]
        self._filtered.add(rows_from(within, rest), texts, place)
        copies = self._back if found.lane == LANE else self._copies
        copies.add(self.matching(found.duplicates, found.lane), texts, place)
        aside = self.matching(found.aside, found.lane)
        self._aside.add(aside, texts, place)
        if found.lane == "main":
            self.told.update(addresses_of(aside))
        # A record without an event time of today may have had one.
        self._unplaced += self._within(found.unplaced, also_null=True).num_rows

    def unplaced(self) -> list[str]:
        """Return in words how many records would be told to be left out, and are in what was computed."""
        if not self._unplaced:
            return []
        records, were = ("record", "was") if self._unplaced == 1 else ("records", "were")
        return [
            f"{self._unplaced:,} {records} of that time {were} accepted when read, and would be set aside by "
            "the rules of today: what was computed before has them, and they are not among these"
        ]

    def _within(self, rows: pa.Table, *, also_null: bool = False) -> pa.Table:
        """Return the rows whose event times lie in the group's window; all of them where it has none."""
        if self._group.bounds is None:
            return rows
        begins, ends = (pa.scalar(each, pa.timestamp("us", "UTC")) for each in self._group.bounds)
        at = rows.column("_event_time")
        inside = pc.and_(pc.greater_equal(at, begins), pc.less(at, ends))
        return rows.filter(pc.fill_null(inside, also_null))


def rows_from(rows: pa.Table, places: Iterable[Address]) -> pa.Table:
    """Return those of `rows` that are from these addresses."""
    wanted = set(places)
    return rows.filter(pa.array([each in wanted for each in addresses_of(rows)], pa.bool_()))
