"""Windowed and keyed tables: partial aggregates of a batch, merged into one row per window and key.

A sliding window whose size is a multiple of its slide is aggregated per slide first (a pane), and the panes
are spread over their windows: the batch's rows are read once, however many windows they fall into.
"""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa

from headrace.engine.local.compute import Delta, EpochContext, bounds_of, grouped_delta
from headrace.engine.local.queries import Queries
from headrace.engine.local.sides import Sides
from headrace.sql.plan import Aggregate, TablePlan
from headrace.store.instants import micros_of_length
from headrace.store.names import quoted, state_name
from headrace.store.results import log_unfit
from headrace.store.schema import finished_columns, key_columns

__all__ = ["GroupedTable", "log_removals"]


def _instant(micros: int) -> str:
    return f"make_timestamptz({micros})"


class GroupedTable:
    """Writes one windowed or keyed table."""

    def __init__(self, plan: TablePlan, *, side_values_max: int) -> None:
        self.plan = plan
        self._stored_sides = Sides(plan, side_values_max)
        self._keys = key_columns(plan)
        self._columns = [state for aggregate in plan.aggregates for state in aggregate.state]
        self._size = micros_of_length(plan.window.size) if plan.window else 0
        self._slide = micros_of_length(plan.window.slide) if plan.window else 0
        self._spread = -(-self._size // self._slide) if plan.window else 1
        self._part = f"_part_{plan.name}"
        self._partial = self._partial_sql()
        self._sides = {a.name: self._side_sql(a) for a in plan.aggregates if a.side is not None}

    # --- the partial aggregates of a batch

    def _start(self) -> str:
        """Return the window's (or pane's) start of a row, in microseconds; right before 1970 as well."""
        return f"epoch_us(_time) - ((epoch_us(_time) % {self._slide}) + {self._slide}) % {self._slide}"

    def _source(self) -> str:
        """Return the row part with the start of its first (for sliding: last) window."""
        if self.plan.window is None:
            return f"({self.plan.row_sql})"
        if self._exact_panes:
            return f"(SELECT *, {self._start()} AS _start FROM ({self.plan.row_sql}))"
        return (
            f"(SELECT *, _pane - _i * {self._slide} AS _start FROM "
            f"(SELECT *, {self._start()} AS _pane FROM ({self.plan.row_sql})), "
            f"(SELECT unnest(range({self._spread})) AS _i) "
            f"WHERE _pane - _i * {self._slide} + {self._size} > epoch_us(_time))"
        )

    @property
    def _exact_panes(self) -> bool:
        return self._size % self._slide == 0

    def _group(self) -> tuple[str, str]:
        """Return the grouping columns of a partial, as a select list and as names."""
        keys = [quoted(key.name) for key in self.plan.keys]
        names = (["_start"] if self.plan.window else []) + keys
        return "".join(f"{name}, " for name in names), ", ".join(names)

    def _partial_sql(self) -> str:
        select, group = self._group()
        partials = "".join(f"{state.partial} AS {quoted(state.name)}, " for state in self._columns)
        counted = (
            "count(*)" if self.plan.window is None or self._exact_panes else "count(*) FILTER (WHERE _i = 0)"
        )
        having = f" GROUP BY {group}" if group else " HAVING count(*) > 0"
        query = f"SELECT {select}{partials}{counted} AS _n FROM {self._source()}{having}"
        if self.plan.window is None:
            return query
        keys = "".join(f"{quoted(key.name)}, " for key in self.plan.keys)
        if not self._exact_panes or self._spread == 1:
            names = "".join(f"{quoted(state.name)}, " for state in self._columns)
            return f"SELECT make_timestamptz(_start) AS window_start, {keys}{names}_n FROM ({query})"
        combined = "".join(f"{state.combine} AS {quoted(state.name)}, " for state in self._columns)
        return (
            f"SELECT make_timestamptz(_start - _i * {self._slide}) AS window_start, {keys}{combined}"
            f"CAST(coalesce(sum(_n) FILTER (WHERE _i = 0), 0) AS BIGINT) AS _n "
            f"FROM ({query}) p, (SELECT unnest(range({self._spread})) AS _i) "
            f"GROUP BY {', '.join(['window_start', *(quoted(key.name) for key in self.plan.keys)])}"
        )

    def _side_sql(self, aggregate: Aggregate) -> str:
        assert aggregate.side is not None  # noqa: S101 - the caller looked
        select, group = self._group()
        value = quoted(aggregate.side.argument)
        query = (
            f'SELECT {select}{value} AS "_value", count(*) AS "_count" FROM {self._source()} '
            f'WHERE {value} IS NOT NULL GROUP BY {group + ", " if group else ""}"_value"'
        )
        if self.plan.window is None:
            return query
        keys = "".join(f"{quoted(key.name)}, " for key in self.plan.keys)
        if not self._exact_panes or self._spread == 1:
            return f'SELECT make_timestamptz(_start) AS window_start, {keys}"_value", "_count" FROM ({query})'
        return (
            f'SELECT make_timestamptz(_start - _i * {self._slide}) AS window_start, {keys}"_value", '
            f'CAST(sum("_count") AS BIGINT) AS "_count" FROM ({query}), '
            f"(SELECT unnest(range({self._spread})) AS _i) GROUP BY ALL"
        )

    def compute(self, queries: Queries, rows: int) -> Delta:
        """Return the partial aggregates of "_rows"."""
        delta = grouped_delta(self.plan, queries, rows, partial=self._partial, sides=self._sides)
        if self.plan.window is not None and delta.rows.num_rows:
            delta.lowest, delta.highest = bounds_of(delta.rows.column("window_start"))
        return delta

    # --- the merge

    def apply(self, context: EpochContext, delta: Delta) -> int:
        """Merge partial aggregates into the state; a group of a closed window gets a higher revision."""
        if not delta.rows.num_rows:
            return 0
        context.queries.put(self._part, delta.rows)
        closed = context.progress.closed_through
        corrects = closed is not None and delta.lowest is not None and delta.lowest + self._size <= closed
        for statement in self._merge_sql(context.epoch, delta, closed if corrects else None):
            context.connection.execute(statement)
        self._stored_sides.append(context, delta)
        if self.plan.having_sql:
            log_removals(context, self.plan, delta.lowest)
        return int(delta.rows.num_rows)

    def _merge_sql(self, epoch: int, delta: Delta, closed: int | None) -> Iterator[str]:
        state = state_name(self.plan.name)
        sets = "".join(f"{quoted(column.name)} = {column.merge}, " for column in self._columns)
        revision = new_revision = ""
        # Also of a window that no epoch closed, so far as is known: a rebuild keeps windows that were.
        finished = ", _finished = NULL" if finished_columns(self.plan) else ""
        if closed is not None:
            late = f"CAST(b.window_start <= {_instant(closed - self._size)} AS INTEGER)"
            revision, new_revision = f", _revision = t._revision + {late}", late
        names = [*self._keys, *(quoted(column.name) for column in self._columns)]
        if not self._keys:
            yield f"UPDATE {state} AS t SET {sets}_epoch = {epoch} FROM {quoted(self._part)} b"
            return
        conditions = [f"t.{key} IS NOT DISTINCT FROM b.{key}" for key in self._keys]
        if self.plan.window is not None:
            # Only row groups whose windows this batch touches are looked at, however long the history is.
            conditions[0] = "t.window_start = b.window_start"
            conditions.append(f"t.window_start >= {_instant(delta.lowest or 0)}")
        values = ", ".join(f"b.{name}" for name in names)
        yield (
            f"MERGE INTO {state} AS t USING {quoted(self._part)} AS b ON {' AND '.join(conditions)} "
            f"WHEN MATCHED THEN UPDATE SET {sets}_epoch = {epoch}{revision}{finished} "
            f"WHEN NOT MATCHED THEN INSERT ({', '.join(names)}, _epoch, _revision) "
            f"VALUES ({values}, {epoch}, {new_revision or 0})"
        )

    # --- bounds

    def first_time(self, bound: int) -> int:
        """Return the least event time whose last window begins at `bound` or later."""
        return -(-bound // self._slide) * self._slide if self._slide else bound

    def last_end(self, event_times: pa.ChunkedArray) -> pa.ChunkedArray:
        """Return the end of the last window of event times (microseconds)."""
        values = event_times.to_numpy()
        return pa.chunked_array([pa.array(values - values % (self._slide or 1) + self._size)])

    def first_end(self, event_times: pa.ChunkedArray) -> pa.ChunkedArray | None:
        """Return the end of the first window of event times (microseconds)."""
        if self.plan.window is None:
            return None
        before = event_times.to_numpy() - self._size
        return pa.chunked_array([pa.array(before - before % self._slide + self._slide + self._size)])


def log_removals(context: EpochContext, plan: TablePlan, lowest: int | None) -> None:
    """Write down rows that left the table by its HAVING in this epoch, and remember which rows are in it."""
    touched = f"t._epoch = {context.epoch}"
    if lowest is not None:
        touched += f" AND t.window_start >= {_instant(lowest)}"
    context.progress.removed += log_unfit(context.connection, plan, context.epoch, touched)
