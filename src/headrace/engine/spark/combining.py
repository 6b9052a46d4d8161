"""Adds up what the parts of a micro-batch change in a table: the store merges one row for each group."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

from headrace.engine.local.appended import latest_first
from headrace.engine.local.compute import Delta
from headrace.engine.local.queries import Queries
from headrace.sql.plan import TableClass, TablePlan
from headrace.store.names import quoted

__all__ = ["combined"]


def combined(queries: Queries, plan: TablePlan, deltas: Sequence[Delta]) -> Delta:
    """Return the one delta of several; reads nothing but them."""
    if len(deltas) == 1:
        return deltas[0]
    with_rows = [delta for delta in deltas if delta.rows.num_rows]
    rows = pa.concat_tables([delta.rows for delta in with_rows or deltas[:1]])
    if len(with_rows) > 1 and (query := _query(plan)):
        queries.put(_relation(plan), rows)
        rows = queries.table(query)
    sides = {
        name: pa.concat_tables([delta.sides[name] for delta in with_rows])
        for name in (with_rows[0].sides if with_rows else ())
    }
    lows = [delta.lowest for delta in deltas if delta.lowest is not None]
    highs = [delta.highest for delta in deltas if delta.highest is not None]
    return Delta(
        rows,
        sides,
        kept=sum(delta.kept for delta in deltas),
        filtered=sum(delta.filtered for delta in deltas),
        failed=tuple(row for delta in deltas for row in delta.failed),
        lowest=min(lows, default=None),
        highest=max(highs, default=None),
        files=tuple(file for delta in deltas for file in delta.files),
    )


def _relation(plan: TablePlan) -> str:
    return f"_parts_{plan.name}"


def _query(plan: TablePlan) -> str:
    """Return the query that combines parts; empty where the store takes them as they are."""
    source = quoted(_relation(plan))
    if plan.kind is TableClass.ROWS:
        if not plan.table.key:
            return ""
        keys = ", ".join(quoted(name) for name in plan.table.key)
        latest = latest_first(plan)
        return f"FROM {source} QUALIFY row_number() OVER (PARTITION BY {keys} ORDER BY {latest}) = 1"
    if plan.kind is TableClass.SESSION:
        return ""  # pieces of sessions, which the merge chains in any case
    names = (["window_start"] if plan.window else []) + [quoted(key.name) for key in plan.keys]
    states = "".join(
        f"{state.combine} AS {quoted(state.name)}, "
        for aggregate in plan.aggregates
        for state in aggregate.state
    )
    listed = "".join(f"{name}, " for name in names)
    group = f" GROUP BY {', '.join(names)}" if names else ""
    return f"SELECT {listed}{states}CAST(sum(_n) AS BIGINT) AS _n FROM {source} p{group}"
