"""Finds the records behind a row of a table: those whose row part gives its keys, within its window."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import duckdb
import pyarrow as pa

from headrace.engine.local.failing import set_aside
from headrace.engine.local.queries import Queries
from headrace.errors import HeadraceError
from headrace.log.between import read_between
from headrace.log.protocol import Log
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
        wanted = {number: one.found for number, one in enumerate(differences)}
        places: dict[int, list[str]] = {number: [] for number in wanted}
        for stream in table.sources:
            for number, partition, offset in self._matches(table, stream, wanted):
                places[number].append(self._address(stream, partition, offset))
        for number, one in enumerate(differences):
            told = tuple(places[number][:_TOLD_MAX])
            yield replace(one, records=told, behind=len(places[number]))

    def _matches(
        self, table: TablePlan, stream: str, wanted: Mapping[int, Mapping[str, Any]]
    ) -> Iterator[tuple[int, int, int]]:
        log = self._logs[stream]
        ranges = log.partitions()
        starts = {each.partition: each.start for each in ranges}
        ends = {each.partition: each.end for each in ranges}
        stage = RowStage(self._plan.streams[stream], self._framings.get(stream))
        cursor = self._store.cursor_beside()
        try:
            for name in self._plan.references:
                cursor.execute(
                    f"CREATE OR REPLACE TEMP VIEW {quoted(f'_reference_{name}')} AS "
                    f"FROM _headrace.{quoted(f'reference_{name}')}"
                )
            queries = Queries(cursor)
            cursor.register("_wanted", _wanted_table(wanted))
            asked = _match_sql(table)
            for records in read_between(log, starts, ends):
                timely = stage.run(records).timely
                if timely.num_rows:
                    rows = timely.append_column("_lane", pa.repeat("main", timely.num_rows))
                    found = _without_failing(queries, table, rows, asked)
                    for each in found.to_pylist():
                        yield each["_wanted_number"], each["_partition"], each["_offset"]
        finally:
            cursor.close()
            stage.close()


def _without_failing(queries: Queries, table: TablePlan, rows: pa.Table, sql: str) -> pa.Table:
    queries.batch(rows)
    try:
        return queries.once(sql)
    except (duckdb.Error, HeadraceError):
        good, _ = set_aside(queries, table.row_sql, rows)
        queries.batch(good)
        return queries.once(sql)


def _wanted_table(wanted: Mapping[int, Mapping[str, Any]]) -> pa.Table:
    rows = [{"_wanted_number": number, **found} for number, found in wanted.items()]
    return pa.Table.from_pylist(rows)


def _match_sql(table: TablePlan) -> str:
    conditions = [
        f"r.{quoted(key.name)} IS NOT DISTINCT FROM CAST(w.{quoted(f'_key_{key.name}')} AS {key.type})"
        for key in table.keys
    ]
    if table.window is not None:
        conditions += ["r._time >= w._key_window_start", "r._time < w._key_window_end"]
    return (
        # The whole row is asked for, so that one that fails in the table fails here as well.
        f"SELECT _wanted_number, _partition, _offset, max(hash(r)) FROM ({table.row_sql}) r "
        f"JOIN _wanted w ON {' AND '.join(conditions) or 'true'} GROUP BY 1, 2, 3 ORDER BY 1, 2, 3"
    )
