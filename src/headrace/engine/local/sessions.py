"""Session tables: the sessions of a batch, merged with the ones that they reach or touch.

A session is known by (keys, start). When its start changes, or when one takes in another, the old row leaves
the table and that is written down; a changed end or total is an update.
"""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from headrace.engine.local.compute import Delta, EpochContext, bounds_of, grouped_delta
from headrace.engine.local.grouped import log_removals
from headrace.engine.local.queries import Queries
from headrace.engine.local.sides import Sides
from headrace.sql.plan import Aggregate, TablePlan
from headrace.store.instants import micros_of_length
from headrace.store.names import quoted, state_name
from headrace.store.schema import groups_sql, removal_key

__all__ = ["SessionTable"]


class SessionTable:
    """Writes one session table."""

    def __init__(self, plan: TablePlan, *, side_values_max: int) -> None:
        assert plan.window is not None  # noqa: S101 - the planner gives every session table its gap
        self.plan = plan
        self._stored_sides = Sides(plan, side_values_max)
        self._gap = micros_of_length(plan.window.size)
        self._keys = [quoted(key.name) for key in plan.keys]
        self._state = [state for aggregate in plan.aggregates for state in aggregate.state]
        self._part, self._found, self._merged = (
            f"_{part}_{plan.name}" for part in ("part", "found", "merged")
        )
        self._partial = self._partial_sql()
        self._alone = {chained: self._alone_sql(chained=chained) for chained in (False, True)}
        self._both = {chained: self._both_sql(chained=chained) for chained in (False, True)}
        self._sides = {a.name: self._side_sql(a) for a in plan.aggregates if a.side is not None}

    # --- the sessions of a batch

    def _listed(self, prefix: str = "") -> str:
        return "".join(f"{prefix}{key}, " for key in self._keys)

    def _bucketed(self) -> str:
        """Return the row part with a bucket as long as the gap: what shares one, shares a session."""
        before = f"((epoch_us(_time) % {self._gap}) + {self._gap}) % {self._gap}"
        return f"(SELECT *, epoch_us(_time) - {before} AS _bucket FROM ({self.plan.row_sql}))"

    def _chained(self, relation: str) -> str:
        """Return `relation` (keys, "_low", "_end" in microseconds) with "_chain", a number per session.

        A row that begins at or before the greatest end so far belongs to the same session: touching is
        merging. Equal intervals are in the same session whatever order a sort gives them, hence RANGE.
        """
        over = f"PARTITION BY {', '.join(self._keys)} " if self._keys else ""
        before = (
            f"max(_end) OVER ({over}ORDER BY _low, _end ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING)"
        )
        return (
            f"(SELECT *, sum(_new) OVER ({over}ORDER BY _low, _end RANGE UNBOUNDED PRECEDING) AS _chain FROM "
            f"(SELECT *, CASE WHEN _low <= {before} THEN 0 ELSE 1 END AS _new FROM {relation}))"
        )

    def _combined(self, relation: str, more: str, *, chained: bool) -> str:
        """Return one row for each session of `relation`; not chained: each key of it has one session."""
        combined = "".join(f"{state.combine} AS {quoted(state.name)}, " for state in self._state)
        groups = [*self._keys, "_chain"] if chained else self._keys
        return (
            f"SELECT make_timestamptz(min(_low)) AS window_start, make_timestamptz(max(_end)) AS window_end, "
            f"{self._listed()}{combined}{more} FROM {self._chained(relation) if chained else relation} p"
            + (f" GROUP BY {', '.join(groups)}" if groups else "")
        )

    def _partial_sql(self) -> str:
        """Return the query of pieces: what of one key shares a bucket."""
        partials = "".join(f"{state.partial} AS {quoted(state.name)}, " for state in self._state)
        return (
            "SELECT min(_time) AS window_start, "
            f"make_timestamptz(epoch_us(max(_time)) + {self._gap}) AS window_end, {self._listed()}{partials}"
            "count(*) AS _n, CAST(NULL AS BIGINT) AS _row, CAST(0 AS INTEGER) AS _revision "
            f"FROM {self._bucketed()} GROUP BY {self._listed()}_bucket"
        )

    def _side_sql(self, aggregate: Aggregate) -> str:
        assert aggregate.side is not None  # noqa: S101 - the caller looked
        # The start of a piece lies within its session whatever that grows to, so side rows never move.
        value = quoted(aggregate.side.argument)
        return (
            f'SELECT make_timestamptz(_at) AS window_start, {self._listed()}"_value", '
            'count(*) AS "_count" FROM '
            f'(SELECT {self._listed()}{value} AS "_value", '
            f"min(epoch_us(_time)) OVER (PARTITION BY {self._listed()}_bucket) AS _at FROM "
            f"{self._bucketed()}) "
            f'WHERE "_value" IS NOT NULL GROUP BY {self._listed()}_at, "_value"'
        )

    def compute(self, queries: Queries, rows: int) -> Delta:
        """Return the pieces of sessions that "_rows" has."""
        delta = grouped_delta(self.plan, queries, rows, partial=self._partial, sides=self._sides)
        if delta.rows.num_rows:
            delta.lowest, _ = bounds_of(delta.rows.column("window_start"))
            _, delta.highest = bounds_of(delta.rows.column("window_end"))
        return delta

    # --- the merge

    def apply(self, context: EpochContext, delta: Delta) -> int:
        """Merge the sessions of a batch with the stored ones that they reach."""
        if not delta.rows.num_rows:
            return 0
        connection, queries = context.connection, context.queries
        queries.put(self._part, delta.rows)
        chained = not self._one_piece_a_key(delta.rows)
        found = queries.once(self._found_sql(delta, context.progress.closed_through))
        if not found.num_rows:
            merged = queries.table(self._alone[chained])
            queries.put(self._merged, merged)
            queries.write(self._insert_sql(), context.epoch)
        else:
            queries.put(self._found, found)
            merged = queries.table(self._both[chained])
            queries.put(self._merged, merged)
            if pc.sum(merged.column("_gone")).as_py():
                self._log_rekeyed(context)
                # A session that was taken in, or begins earlier now, is another row: (keys, start) names it.
                connection.execute(
                    f"DELETE FROM {state_name(self.plan.name)} WHERE rowid IN ({self._gone('_row')})"
                )
            connection.execute(self._merge_sql(context.epoch, delta))
        self._stored_sides.append(context, delta)
        if self.plan.having_sql:
            log_removals(context, self.plan, None)
        return int(merged.num_rows)

    def _one_piece_a_key(self, pieces: pa.Table) -> bool:
        """Return whether no key has two pieces: then nothing must be ordered to know what is one session."""
        names = [key.name for key in self.plan.keys]
        types = [pieces.schema.field(name).type for name in names]
        # Arrow cannot group nested values, and tells 0.0 from -0.0, which are one key to SQL.
        if not names or any(pa.types.is_nested(each) or pa.types.is_floating(each) for each in types):
            return bool(pieces.num_rows == 1)
        return bool(pieces.select(names).group_by(names).aggregate([]).num_rows == pieces.num_rows)

    def _alone_sql(self, *, chained: bool) -> str:
        """Return the query that makes sessions of the pieces of a batch."""
        low = "epoch_us(window_start) AS _low, epoch_us(window_end) AS _end"
        pieces = f"(SELECT *, {low} FROM {quoted(self._part)})"
        return self._combined(pieces, "CAST(max(_revision) AS INTEGER) AS _revision", chained=chained)

    def _both_sql(self, *, chained: bool) -> str:
        """Return the query that combines the pieces of a batch with the stored sessions that they reach."""
        low = "epoch_us(window_start) AS _low, epoch_us(window_end) AS _end"
        part, found = quoted(self._part), quoted(self._found)
        both = f"(SELECT *, {low} FROM (SELECT * FROM {part} UNION ALL BY NAME SELECT * FROM {found}))"
        same_start = "min(_low) FILTER (WHERE _row IS NOT NULL) = min(_low)"
        gone = f"count(_row) - CAST(coalesce({same_start}, false) AS INTEGER) AS _gone"
        revision = "CAST(max(_revision) AS INTEGER) AS _revision"
        return self._combined(both, f"min(_row) AS _row, {revision}, {gone}", chained=chained)

    def _found_sql(self, delta: Delta, closed: int | None) -> str:
        columns = "".join(f"t.{quoted(state.name)}, " for state in self._state)
        same = "".join(f" AND t.{key} IS NOT DISTINCT FROM b.{key}" for key in self._keys)
        # A session that was shown as closed and changes is a correction.
        revision = "t._revision" if closed is None else (
            f"t._revision + CAST(t.window_end <= make_timestamptz({closed}) AS INTEGER)"
        )  # fmt: skip
        return (
            f"SELECT t.window_start, t.window_end, {self._listed('t.')}{columns}"
            f"t.rowid AS _row, {revision} AS _revision "
            f"FROM {state_name(self.plan.name)} t SEMI JOIN {quoted(self._part)} b "
            f"ON t.window_start <= b.window_end AND t.window_end >= b.window_start{same} "
            f"WHERE t.window_end >= make_timestamptz({delta.lowest}) "
            f"AND t.window_start <= make_timestamptz({delta.highest})"
        )

    def _gone(self, what: str) -> str:
        """Return a query over the sessions found whose (keys, start) is in the table no more."""
        same = "".join(f" AND m.{key} IS NOT DISTINCT FROM f.{key}" for key in self._keys)
        return (
            f"SELECT {what} FROM {quoted(self._found)} f ANTI JOIN {quoted(self._merged)} m "
            f"ON m.window_start = f.window_start{same}"
        )

    def _log_rekeyed(self, context: EpochContext) -> None:
        rows = f"t.rowid IN ({self._gone('_row')})"
        shown = " WHERE _shown" if self.plan.having_sql else ""
        logged = context.connection.execute(
            f"INSERT INTO _headrace._removed SELECT ?, {removal_key(self.plan)}, {context.epoch}, 're-keyed' "
            f'FROM ({groups_sql(self.plan, where=rows)}) "_groups"{shown}',
            [self.plan.name],
        ).fetchall()[0][0]
        context.progress.removed += logged

    def _columns(self) -> list[str]:
        return ["window_start", "window_end", *self._keys, *(quoted(state.name) for state in self._state)]

    def _insert_sql(self) -> str:
        names = ", ".join(self._columns())
        return (
            f"INSERT INTO {state_name(self.plan.name)} ({names}, _epoch, _revision) "
            f"SELECT {names}, $1, _revision FROM {quoted(self._merged)}"
        )

    def _merge_sql(self, epoch: int, delta: Delta) -> str:
        names = self._columns()
        changing = ["window_end", *(quoted(state.name) for state in self._state)]
        same = "".join(f" AND t.{key} IS NOT DISTINCT FROM b.{key}" for key in self._keys)
        sets = ", ".join(f"{name} = b.{name}" for name in changing)
        return (
            f"MERGE INTO {state_name(self.plan.name)} AS t USING {quoted(self._merged)} AS b "
            f"ON t.window_start = b.window_start{same} AND t.window_end >= make_timestamptz({delta.lowest}) "
            f"WHEN MATCHED THEN UPDATE SET {sets}, _epoch = {epoch}, _revision = b._revision "
            f"WHEN NOT MATCHED THEN INSERT ({', '.join(names)}, _epoch, _revision) "
            f"VALUES ({', '.join(f'b.{name}' for name in names)}, {epoch}, b._revision)"
        )

    # --- bounds

    def first_time(self, bound: int) -> int:
        """Return the bound: what came before it may be lost."""
        return bound

    def last_end(self, event_times: pa.ChunkedArray) -> pa.ChunkedArray:
        """Return the end that a session of one event would have."""
        return pa.chunked_array([pa.array(event_times.to_numpy() + self._gap)])

    def first_end(self, event_times: pa.ChunkedArray) -> pa.ChunkedArray | None:
        """Return the end that a session of one event would have."""
        return self.last_end(event_times)
