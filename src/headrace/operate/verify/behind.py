"""Finds the records behind a row of a table: those whose row part gives its keys, within its window."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pyarrow as pa

from headrace.log.between import read_between
from headrace.log.protocol import Log
from headrace.operate.record_groups import RecordGroups
from headrace.operate.verify.comparing import Compared, Difference
from headrace.rows import RowStage
from headrace.rows.framing import Framing
from headrace.sql.plan import PipelinePlan, TableClass, TablePlan
from headrace.store import Store
from headrace.store.names import quoted

__all__ = ["RecordsBehind"]

_TOLD_MAX = 10

Address = Callable[[str, int, int], str]
"""(stream, partition, offset in the topic) -> the address for people."""


class RecordsBehind:
    """Looks up records in the logs that both engines read. `store` is the local engine's."""

    def __init__(
        self,
        plan: PipelinePlan,
        logs: Mapping[str, Log],
        store: Store,
        address: Address,
        framings: Mapping[str, Framing],
    ) -> None:
        self._plan = plan
        self._framings = framings
        self._logs = logs
        self._store = store
        self._address = address
        self._tables = {table.name: table for table in plan.tables}

    def added(self, compared: Compared) -> Compared:
        """Return what was compared with the records behind each difference that is told."""
        if not compared.differences:
            return compared
        if compared.kind in ("dead letters", "late rows"):
            return replace(compared, differences=tuple(self._placed(compared, compared.differences)))
        table = self._tables.get(compared.name) if compared.kind == "table" else None
        if table is None:
            return compared
        if table.kind is TableClass.ROWS:
            stream = table.sources[0]
            told = [
                replace(one, records=(self._told(stream, one.found),), behind=1)
                for one in compared.differences
            ]
            return replace(compared, differences=tuple(told))
        return replace(compared, differences=tuple(self._grouped(table, compared.differences)))

    def _told(self, stream: str, found: Mapping[str, Any]) -> str:
        return self._address(stream, found["_partition"], found["_offset"])

    def _placed(self, compared: Compared, differences: tuple[Difference, ...]) -> Iterator[Difference]:
        for one in differences:
            key = one.found
            stream = compared.name or key["stream"]
            partition, offset = (key.get(name, key.get(f"_{name}")) for name in ("partition", "offset"))
            place = self._address(stream, int(partition or 0), int(offset or 0))
            yield replace(one, key={"record": place}, records=(place,), behind=1)

    def _grouped(self, table: TablePlan, differences: tuple[Difference, ...]) -> Iterator[Difference]:
        """Give the differences of a grouped table with the records of their groups, copies among them."""
        wanted = [one.found for one in differences]
        places: list[list[str]] = [[] for _ in wanted]
        for stream in table.sources:
            for number, partition, offset in self._matches(table, stream, wanted):
                places[number].append(self._address(stream, partition, offset))
        for number, one in enumerate(differences):
            told = tuple(places[number][:_TOLD_MAX])
            yield replace(one, records=told, behind=len(places[number]))

    def _matches(
        self, table: TablePlan, stream: str, wanted: Sequence[Mapping[str, Any]]
    ) -> Iterator[tuple[int, int, int]]:
        log, plan = self._logs[stream], self._plan.streams[stream]
        ranges = log.partitions()
        starts = {each.partition: each.start for each in ranges}
        ends = {each.partition: each.end for each in ranges}
        with ExitStack() as undo:
            stage = RowStage(plan, self._framings.get(stream))
            undo.callback(stage.close)
            asked = pa.Table.from_pylist([_askable(found) for found in wanted])
            groups = RecordGroups(table, plan, asked, self._reference)
            undo.callback(groups.close)
            for records in read_between(log, starts, ends):
                timely = stage.run(records).timely
                for number, places in groups.sort(timely).inside.items():
                    for place in places:
                        yield number, *place

    def _reference(self, name: str) -> pa.Table:
        return self._store.query(f"FROM _headrace.{quoted(f'reference_{name}')}")


def _askable(found: Mapping[str, Any]) -> dict[str, Any]:
    """Return a key with its exact numbers as texts: Arrow makes of a HUGEINT what DuckDB does not read."""
    return {name: format(one, "f") if isinstance(one, Decimal) else one for name, one in found.items()}
