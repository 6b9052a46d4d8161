"""Values that a closed window keeps, so that nobody has to count its side tables again.

A distinct count or a median is counted out of a side table whenever somebody looks. Few records come to a
window once it is closed, and there are ever more closed windows, so their values are written into the state:
a reader counts what is open. A correction takes the value of its window away until windows are closed the
next time.
"""

from __future__ import annotations

from typing import Any

from headrace.sql.plan import TablePlan
from headrace.store.instants import micros_of_length
from headrace.store.names import quoted, state_name
from headrace.store.results import ended
from headrace.store.schema import finished_columns, groups_sql, has_column, key_columns

__all__ = ["add_finished_columns", "finish_windows", "first_unfinished"]

_WINDOWS_AT_ONCE = 1_000


def add_finished_columns(connection: Any, plan: TablePlan) -> None:
    """Let the state of a table, of a store of before, keep such values; it has none yet."""
    columns = finished_columns(plan)
    if not columns or has_column(connection, plan, columns[0][0]):
        return
    for name, kind in columns:
        connection.execute(f"ALTER TABLE {state_name(plan.name)} ADD COLUMN {quoted(name)} {kind}")


def first_unfinished(connection: Any, plan: TablePlan, *, since: int | None = None) -> int | None:
    """Return the start, in microseconds, of the first window (from `since` on) that keeps no values.

    None: there is none, or the table has no such values.
    """
    if not finished_columns(plan):
        return None
    bound = "" if since is None else f" AND window_start >= make_timestamptz({since})"
    found = connection.execute(
        f"SELECT epoch_us(min(window_start)) FROM {state_name(plan.name)} WHERE _finished IS NULL{bound}"
    ).fetchall()
    start: int | None = found[0][0]
    return start


def finish_windows(connection: Any, plan: TablePlan, *, start: int, end: int) -> int | None:
    """Write down the values of windows that begin at `start` or later and end at `end` or before.

    Both are in microseconds. Inside the transaction that closes the windows, so only the first windows when
    there are many: after a store was taken over, these are all that it ever closed. Returns the start of the
    first one that keeps no values now, which may be open; None: there is none.
    """
    window = plan.window
    assert window is not None  # noqa: S101 - only windows have an end
    behind = start + _WINDOWS_AT_ONCE * micros_of_length(window.slide)
    due = (
        f"t._finished IS NULL AND t.window_start >= make_timestamptz({start}) "
        f"AND t.window_start < make_timestamptz({behind}) AND {ended(plan, end)}"
    )
    names = [quoted(name) for name, _ in finished_columns(plan)[1:]]
    sets = "".join(f", {name} = g.{name}" for name in names)
    same = " AND ".join(f"t.{key} IS NOT DISTINCT FROM g.{key}" for key in key_columns(plan)[1:])
    connection.execute(
        f"UPDATE {state_name(plan.name)} AS t SET _finished = true{sets} "
        f"FROM ({groups_sql(plan, where=due)}) g "
        f"WHERE t.window_start = g.window_start{' AND ' + same if same else ''} AND {due}"
    )
    return first_unfinished(connection, plan, since=min(behind, end - micros_of_length(window.size) + 1))
