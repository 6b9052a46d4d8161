"""What a table shows of its state: columns that are computed when somebody looks, and HAVING.

They may change without another state, so a store goes on with them. But replicas hold what was shown before,
and `_shown` in the state says which rows those are.
"""

from __future__ import annotations

import json
from typing import Any

from headrace.sql.plan import TableClass, TablePlan
from headrace.store.instants import micros_of_length
from headrace.store.names import quoted, state_name
from headrace.store.progress import Progress
from headrace.store.schema import attempt, groups_sql, has_column, key_columns, key_json, removal_key

__all__ = [
    "EXPIRED",
    "adopt_results",
    "ended",
    "forget_expired",
    "forget_result",
    "log_expired",
    "log_unfit",
    "write_result",
]

Facts = dict[str, Any]

EXPIRED = "expired"
"""The reason of an entry in `_removed` for a row that was older than its table's `keep`."""
_EXPIRIES = 16
"""Rows are retired in steps of a share of `keep`, so these are those of about the last `keep`."""


def adopt_results(connection: Any, tables: list[TablePlan], progress: Progress) -> list[str]:
    """Let every replica follow tables that show something else of the state that they had.

    Inside a transaction; `tables` are those whose state stays. Their rows move to an epoch of their own,
    those of closed windows with a higher revision, and rows that HAVING leaves out now are written down as
    removed: so a replica follows whenever it comes. Returns what changed, in words.
    """
    changed = []
    for plan in tables:
        if plan.kind in (TableClass.VIEW, TableClass.ROWS):
            continue  # a row of class rows is its own state, and a view is compared with what was sent
        known, now = _known(connection, plan.name), _facts_of(plan)
        # A store of before results were written down tells by `_shown` whether there was a HAVING.
        if (known is not None and known != now) or has_column(connection, plan, "_shown") != bool(
            plan.having_sql
        ):
            changed.append((plan, _difference(known, now)))
        write_result(connection, plan)
    if not changed:
        return []
    shown = progress.epoch > 0  # before the first epoch there is nothing that anybody could have seen
    progress.epoch += int(shown)
    for plan, _ in changed:
        progress.tables[plan.name].removed += _show_again(connection, plan, progress)
    return [
        f"table '{plan.name}' shows something else of the same state since epoch {progress.epoch} ({what}); "
        "replicas are sent all its rows again"
        for plan, what in changed
        if shown
    ]


def write_result(connection: Any, plan: TablePlan) -> None:
    """Write down what a table shows now, inside a transaction; of class rows it is what its state holds."""
    forget_result(connection, plan.name)
    if plan.kind is TableClass.ROWS:
        return
    connection.execute(
        "INSERT INTO _headrace.meta VALUES (?, ?)", [_place(plan.name), json.dumps(_facts_of(plan))]
    )


def forget_result(connection: Any, table: str) -> None:
    """Forget what a table showed, inside a transaction."""
    connection.execute("DELETE FROM _headrace.meta WHERE name = ?", [_place(table)])


def log_unfit(connection: Any, plan: TablePlan, epoch: int, touched: str) -> int:
    """Write down rows that left the table by its HAVING, and remember which are in it; return how many left.

    `touched` is the condition over the state `t` for the rows that may have changed.
    """
    groups = groups_sql(plan, where=touched)
    fits = f"coalesce({attempt(plan.having_sql)}, false)"
    removed: int = connection.execute(
        f"INSERT INTO _headrace._removed SELECT ?, {removal_key(plan)}, {epoch}, 'having' "
        f'FROM ({groups}) "_groups" WHERE _shown AND NOT {fits}',
        [plan.name],
    ).fetchall()[0][0]
    keys = key_columns(plan)
    matches = " AND ".join(f"t.{key} IS NOT DISTINCT FROM g.{key}" for key in keys) or "true"
    names = "".join(f"{key}, " for key in keys)
    connection.execute(
        f"UPDATE {state_name(plan.name)} AS t SET _shown = g.fits "
        f'FROM (SELECT {names}{fits} AS fits FROM ({groups}) "_groups") g WHERE {matches} AND {touched}'
    )
    return removed


def log_expired(connection: Any, plan: TablePlan, epoch: int, through: int) -> int | None:
    """Write down the keys of rows that are retired now, inside the transaction that takes them out.

    Those of the last `_EXPIRIES` times stay known. Returns the epoch up to which others are known no more;
    None: none is forgotten.
    """
    if plan.kind is TableClass.ROWS:
        over = f"{state_name(plan.name)} t WHERE t._time <= make_timestamptz({through})"
        key = key_json(plan, {name: f"t.{quoted(name)}" for name in plan.key})
        keys = f"SELECT {key} AS k FROM {over}"
    else:
        shown = " WHERE _shown" if plan.having_sql else ""
        groups = groups_sql(plan, where=ended(plan, through))
        keys = f'SELECT {removal_key(plan)} AS k FROM ({groups}) "_groups"{shown}'
    connection.execute(
        f"INSERT INTO _headrace._removed SELECT ?, k, {epoch}, ? FROM ({keys})", [plan.name, EXPIRED]
    )
    old = connection.execute(
        'SELECT DISTINCT epoch FROM _headrace._removed WHERE "table" = ? AND reason = ? '
        f"ORDER BY 1 DESC LIMIT 1 OFFSET {_EXPIRIES}",
        [plan.name, EXPIRED],
    ).fetchall()
    if not old:
        return None
    forgotten: int = old[0][0]
    forget_expired(connection, plan.name, through=forgotten)
    return forgotten


def forget_expired(connection: Any, table: str, *, through: int | None = None) -> None:
    """Forget which rows of a table were retired, up to an epoch or at all, inside a transaction."""
    bound = "" if through is None else f" AND epoch <= {through}"
    connection.execute(
        f'DELETE FROM _headrace._removed WHERE "table" = ? AND reason = ?{bound}', [table, EXPIRED]
    )


def ended(plan: TablePlan, through: int) -> str:
    """Return the condition over the state `t` for windows that end at `through`, microseconds, or before."""
    if plan.kind is TableClass.WINDOWED and plan.window is not None:
        return f"t.window_start <= make_timestamptz({through - micros_of_length(plan.window.size)})"
    return f"t.window_end <= make_timestamptz({through})"


def _show_again(connection: Any, plan: TablePlan, progress: Progress) -> int:
    """Move all rows of a table to the epoch of `progress`; return how many HAVING leaves out of it now."""
    state, removed = state_name(plan.name), 0
    if plan.having_sql:
        if not has_column(connection, plan, "_shown"):  # there was no HAVING: every row was in the table
            connection.execute(f"ALTER TABLE {state} ADD COLUMN _shown BOOLEAN")
            connection.execute(f"UPDATE {state} SET _shown = true")
        removed = log_unfit(connection, plan, progress.epoch, "true")
    elif has_column(connection, plan, "_shown"):
        connection.execute(f"ALTER TABLE {state} DROP COLUMN _shown")
    closed = progress.tables[plan.name].closed_through
    revision = "" if closed is None else (
        f", _revision = t._revision + CAST({ended(plan, closed)} AS INTEGER)"
    )  # fmt: skip
    connection.execute(f"UPDATE {state} AS t SET _epoch = {progress.epoch}{revision}")
    return removed


def _place(table: str) -> str:
    return f"result:{table}"


def _known(connection: Any, table: str) -> Facts | None:
    found = connection.execute("SELECT value FROM _headrace.meta WHERE name = ?", [_place(table)]).fetchall()
    return json.loads(found[0][0]) if found else None


def _facts_of(plan: TablePlan) -> Facts:
    cells = zip(plan.columns, plan.result_sql, strict=True)
    return {"columns": {c.name: [c.type, sql] for c, sql in cells}, "having": plan.having_sql}


def _difference(known: Facts | None, now: Facts) -> str:
    before = known or {"columns": now["columns"], "having": ""}
    was, shown = before["columns"], now["columns"]
    changes = [
        *(f"column '{name}' is new" for name in shown if name not in was),
        *(f"column '{name}' is gone" for name in was if name not in shown),
        *(
            f"column '{name}' is computed otherwise"
            for name in shown
            if was.get(name, shown[name]) != shown[name]
        ),
    ]
    if before["having"] != now["having"] or known is None:
        changes.append("another HAVING" if now["having"] else "no HAVING any more")
    return ", ".join(changes)
