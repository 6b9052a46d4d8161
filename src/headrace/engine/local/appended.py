"""Tables of class rows: every accepted row that the query keeps; with `key=`, the latest row of each key."""

from __future__ import annotations

import pyarrow as pa

from headrace.engine.local.compute import Delta, EpochContext, bounds_of, count_records
from headrace.engine.local.queries import Queries
from headrace.sql.plan import TablePlan
from headrace.store.names import quoted, state_name

__all__ = ["RowsTable", "latest_first"]

_HIDDEN = ("_time", "_record_time", "_partition", "_offset")


def latest_first(plan: TablePlan) -> str:
    """Return the ORDER BY that puts the row first which a key keeps.

    The rows that UNNEST makes of one record differ in nothing but their columns: of them it is the greatest.
    """
    ties = [quoted(column.name) for column in plan.columns] if plan.unnests else []
    order = ["_time", "_record_time", "_partition", "_offset", *ties]
    return ", ".join(f"{name} DESC NULLS LAST" for name in order)


class RowsTable:
    """Writes one table of class rows."""

    def __init__(self, plan: TablePlan) -> None:
        self.plan = plan
        self._names = [quoted(column.name) for column in plan.columns] + list(_HIDDEN)
        self._keys = [quoted(name) for name in plan.table.key]

    def compute(self, queries: Queries, rows: int) -> Delta:
        """Return the rows that the query keeps of "_rows"; with a key, the latest of each in this batch."""
        query = self.plan.row_sql
        if self._keys:
            query = (
                f"SELECT * FROM ({query}) QUALIFY row_number() OVER "
                f"(PARTITION BY {', '.join(self._keys)} ORDER BY {latest_first(self.plan)}) = 1"
            )
        found = queries.table(query)
        kept = int(found.num_rows)
        if self.plan.unnests or self._keys:
            kept = count_records(queries.connection, self.plan.row_sql, unnests=self.plan.unnests)
        delta = Delta(found, kept=kept, filtered=rows - kept)
        if found.num_rows:
            delta.lowest, delta.highest = bounds_of(found.column("_time"))
        return delta

    def apply(self, context: EpochContext, delta: Delta) -> int:
        """Append the rows, or put them in the place of older rows with their key."""
        if not delta.rows.num_rows:
            return 0
        part = f"_part_{self.plan.name}"
        context.queries.put(part, delta.rows)
        state, names = state_name(self.plan.name), ", ".join(self._names)
        if not self._keys:
            context.queries.write(
                f"INSERT INTO {state} ({names}, _epoch) SELECT {names}, $1 FROM {quoted(part)}", context.epoch
            )
            return int(delta.rows.num_rows)
        matches = " AND ".join(f"t.{key} IS NOT DISTINCT FROM b.{key}" for key in self._keys)
        # Rows of one record never meet here: they are in one batch, which has one row for each key.
        newer = "({0}._time, {0}._record_time, {0}._partition, {0}._offset)"
        sets = ", ".join(f"{name} = b.{name}" for name in self._names)
        values = ", ".join(f"b.{name}" for name in self._names)
        context.connection.execute(
            f"MERGE INTO {state} AS t USING {quoted(part)} AS b ON {matches} "
            f"WHEN MATCHED AND {newer.format('b')} > {newer.format('t')} "
            f"THEN UPDATE SET {sets}, _epoch = {context.epoch} "
            f"WHEN NOT MATCHED THEN INSERT ({names}, _epoch) VALUES ({values}, {context.epoch})"
        )
        return int(delta.rows.num_rows)

    def first_time(self, bound: int) -> int:
        """Rows have no windows: none is left out for what came before it."""
        return bound

    def last_end(self, event_times: pa.ChunkedArray) -> pa.ChunkedArray:
        """Return the event times: a row is retired by its own."""
        return event_times

    def first_end(self, event_times: pa.ChunkedArray) -> pa.ChunkedArray | None:
        """Rows have no windows that close."""
        return None
