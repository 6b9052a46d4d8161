"""Finds the row of a table that somebody points at: which group it is, and how it is now."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from headrace.errors import RefusedError
from headrace.sql.plan import NamedColumn, TableClass, TablePlan
from headrace.store.names import quoted, text_literal
from headrace.store.schema import groups_sql, result_columns
from headrace.web.page.values import plain

if TYPE_CHECKING:
    from headrace.store import Store, StoreStatus

__all__ = ["Group", "condition_of", "group_of", "no_such_row", "shown_of"]

_TRIES = 5


@dataclass(frozen=True)
class Group:
    """A row of a table as it is now: `asked` names its group for `RecordGroups`, `shown` are its columns."""

    shown: dict[str, Any]
    asked: pa.Table
    bounds: tuple[datetime, datetime] | None
    status: StoreStatus


def group_of(store: Store, plan: TablePlan, row: Mapping[str, Any]) -> Group:
    """Return a row of a table that groups. Raises RefusedError for one that is absent, or not told apart."""
    where = condition_of(plan, row)
    names = [key.name for key in plan.keys] + (["window_start", "window_end"] if plan.window else [])
    asked = [f"_key_{name}" for name in names]
    hidden = [f"{quoted(name)} AS {quoted(own)}" for name, own in zip(names, asked, strict=True)]
    sql = (
        f'WITH "_groups" AS ({groups_sql(plan)}), _shown AS '
        f'(SELECT {", ".join([*hidden, result_columns(plan)])} FROM "_groups") '
        f"SELECT * FROM _shown WHERE {where} LIMIT 1"
    )
    for _ in range(_TRIES):  # row and positions of one epoch
        status = store.status()
        found = store.query(sql, rows_max=1)
        if store.status().epoch == status.epoch:
            break
    if not found.num_rows:
        raise no_such_row(plan)
    bounds = None
    if plan.window is not None:
        begins, ends = (found.column(name)[0].as_py() for name in asked[-2:])
        bounds = (begins, ends)
    return Group(shown_of(found, plan), found.select(asked or found.column_names[:1]), bounds, status)


def condition_of(plan: TablePlan, row: Mapping[str, Any]) -> str:
    """Return the condition that finds a row by the table's key; where it has none, by all that is plain."""
    types = {each.name: each for each in plan.columns}
    names = plan.key or [each.name for each in plan.columns if _is_plain(each) and each.name in row]
    if plan.kind is not TableClass.ROWS and not plan.key:
        if plan.keys or plan.window is not None:
            raise RefusedError(
                f"'{plan.name}' does not show what tells its rows apart", fix="SELECT its grouping keys too"
            )
        return "true"  # there is one row
    missing = [name for name in names if name not in row]
    if missing or not names:
        raise RefusedError("the row is not told apart", fix="give its " + ", ".join(missing or types))
    return " AND ".join(
        f"{quoted(name)} IS NOT DISTINCT FROM {_literal(types[name], row[name])}" for name in names
    )


def _is_plain(column: NamedColumn) -> bool:
    return not any(word in column.type.upper() for word in ("[", "STRUCT", "MAP", "BLOB", "DOUBLE", "FLOAT"))


def _literal(column: NamedColumn, value: Any) -> str:
    if value is None:
        return "NULL"
    if isinstance(value, bool | int | float):
        value = str(value).lower()
    if not isinstance(value, str):
        raise RefusedError(f"'{column.name}' of the row is no plain value", fix="give it as it is shown")
    return f"TRY_CAST({text_literal(value)} AS {column.type})"


def no_such_row(plan: TablePlan) -> RefusedError:
    """Return the error for a row that is not there."""
    return RefusedError(
        f"'{plan.name}' has no such row (any more)", fix="load its rows anew: they change while records flow"
    )


def shown_of(found: pa.Table, plan: TablePlan) -> dict[str, Any]:
    """Return the declared columns of the first row, as an answer shows them."""
    facts = found.select([each.name for each in plan.columns]).to_pylist()[0]
    return {name: plain(value) for name, value in facts.items()}
