"""What changed in a store since an epoch, in bounded pieces: what replicas follow.

Rows move only to higher epochs, so a span of epochs that is read piece by piece needs no snapshot: a row that
changes between two pieces leaves the span and comes again with its new epoch. Every function runs inside a
`StoreReading.snapshot`, which ends before anybody talks to another system.
"""

from __future__ import annotations

import json
import re
from bisect import bisect_right
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from headrace.rows.database import bare_arrow_of
from headrace.sql.plan import TableClass, TablePlan
from headrace.store.names import quoted, state_name, text_literal
from headrace.store.progress import Progress
from headrace.store.results import EXPIRED, ended
from headrace.store.schema import (
    exact_name,
    groups_sql,
    having_condition,
    removal_key,
    result_columns,
    textual_type,
)

__all__ = [
    "REBUILT",
    "Closing",
    "Head",
    "Position",
    "begun_again",
    "changed_rows",
    "closed_span",
    "closing_between",
    "epoch_sizes",
    "has_closings",
    "is_nested",
    "read_head",
    "removed_keys",
    "view_rows",
]

REBUILT = "rebuilt"
"""The reason of an entry in `_removed` without a key: the table was emptied, to be computed again."""

_BLOB_INSIDE = re.compile(r"""\"[^\"]*\"|'[^']*'|\bBLOB(?=[,)\[]|$)""")
_WHOLE = -1
_NESTED = ("STRUCT", "MAP", "UNION")


@dataclass(frozen=True)
class Position:
    """How far a table was copied: all rows of epochs up to `epoch`.

    And of the epochs behind it up to `through`, the rows whose key has a hash up to `after`.
    """

    epoch: int = 0
    through: int = 0
    after: int = _WHOLE

    @staticmethod
    def at(epoch: int) -> Position:
        """Return the position at which everything up to `epoch` was copied."""
        return Position(epoch, epoch, _WHOLE)

    @property
    def whole(self) -> bool:
        """Whether no piece of a span was copied, so that another span may be chosen."""
        return self.after == _WHOLE


@dataclass(frozen=True)
class Head:
    """Where a store stands: its identity, its last epoch, and the progress document."""

    store_id: str
    epoch: int
    progress: Progress

    def rebuilding(self, table: str) -> bool:
        """Return whether a table is being computed again, so that its rows are not all there."""
        facts = self.progress.tables.get(table)
        return facts is not None and facts.rebuild is not None


@dataclass(frozen=True)
class Closing:
    """Windows that end at `through` or before, and after `before`, were closed; None: nothing was."""

    before: int | None
    through: int | None


def read_head(cursor: Any) -> Head:
    """Return where the store stands."""
    body = cursor.execute("SELECT body FROM _headrace.progress").fetchall()[0][0]
    store_id = cursor.execute("SELECT value FROM _headrace.meta WHERE name = 'store_id'").fetchall()[0][0]
    progress = Progress.from_json(body)
    return Head(store_id, progress.epoch, progress)


def epoch_sizes(
    cursor: Any, plan: TablePlan, after: int, through: int, *, expired_after: int | None = None
) -> list[tuple[int, int]]:
    """Return (epoch, rows) for the epochs behind `after` up to `through`, in order.

    The rows are those of the state, and those that left (see `removed_keys`).
    """
    span = f"epoch > {after} AND epoch <= {through}"
    found: list[tuple[int, int]] = cursor.execute(
        "SELECT epoch, CAST(sum(changed) AS BIGINT) FROM ("
        f"SELECT _epoch AS epoch, count(*) AS changed FROM {state_name(plan.name)} WHERE _{span} GROUP BY 1 "
        f"UNION ALL SELECT epoch, count(*) FROM {_removed(plan, expired_after)} AND {span} GROUP BY 1) "
        "GROUP BY 1 ORDER BY 1"
    ).fetchall()
    return found


def begun_again(cursor: Any, table: str, after: int) -> int | None:
    """Return the last epoch behind `after` at which a table was emptied to be computed again."""
    found = cursor.execute(
        'SELECT max(epoch) FROM _headrace._removed WHERE "table" = ? AND reason = ? AND epoch > ?',
        [table, REBUILT, after],
    ).fetchall()
    epoch: int | None = found[0][0]
    return epoch


def has_closings(plan: TablePlan) -> bool:
    """Return whether rows of a table are over at some time: windows and sessions are."""
    return plan.kind in (TableClass.WINDOWED, TableClass.SESSION)


def closing_between(cursor: Any, plan: TablePlan, after: int, through: int) -> Closing:
    """Return what was closed by the epochs behind `after` up to `through`; maybe nothing was."""
    before, closed = cursor.execute(
        "SELECT epoch_us(max(closed_through) FILTER (WHERE epoch <= ?)), epoch_us(max(closed_through)) "
        'FROM _headrace._closings WHERE "table" = ? AND epoch <= ?',
        [after, plan.name, through],
    ).fetchall()[0]
    return Closing(before, closed)


def closed_span(cursor: Any, plan: TablePlan, after: int, head: int, *, rows_max: int) -> int:
    """Return the epoch up to which about `rows_max` rows closed behind `after`: `head`, if they are fewer.

    Sessions are closed every moment; a span for each closing would be a file for each.
    """

    def size(through: int) -> int:
        where = _where(plan, Position(after, through), closing_between(cursor, plan, after, through))
        # Of the state alone: what side tables hold makes no more rows, and costs fifty times as much.
        told = cursor.execute(f"SELECT count(*) FROM {state_name(plan.name)} t WHERE {where}").fetchall()
        count: int = told[0][0]
        return count

    if size(head) <= rows_max:
        return head
    found = cursor.execute(
        'SELECT DISTINCT epoch FROM _headrace._closings WHERE "table" = ? AND epoch > ? AND epoch <= ? '
        "ORDER BY 1",
        [plan.name, after, head],
    ).fetchall()
    epochs: list[int] = [epoch for (epoch,) in found] or [head]
    # One closing may be more by itself; it is sent in pieces.
    return epochs[max(0, bisect_right(epochs, rows_max, key=size) - 1)]


def changed_rows(
    cursor: Any,
    plan: TablePlan,
    position: Position,
    *,
    rows_max: int | None = None,
    closing: Closing | None = None,
    json_nested: bool = False,
    row_keys: bool = False,
) -> tuple[pa.Table, Position]:
    """Return rows of the span that `position` is in, and the position behind them.

    The rows have the declared columns, then "_epoch" BIGINT; "_key" VARCHAR when the table has no key among
    its columns; "_revision" INTEGER with a `closing`, which takes only windows that are closed. With
    `rows_max`, or behind a piece, the span is read in the order of a hash of the key, about so many rows at a
    time, and "_hash" BIGINT is that hash: a piece may be cut behind any of its values.
    `json_nested` gives lists and structs as JSON text. `row_keys` gives rows of a table without a key a
    "_key", which is the same whenever the row is read.
    """
    where = _where(plan, position, closing)
    paged = rows_max is not None or not position.whole
    numbered = row_keys and plan.kind is TableClass.ROWS and not plan.key
    revision = closing is not None
    base = _rows_sql(plan, where, paged, revision=revision, json_nested=json_nested, addressed=numbered)
    done = Position.at(position.through)
    if not paged:
        return bare_arrow_of(cursor, _numbered(plan, base) if numbered else base), done
    rest = f'SELECT * FROM ({base}) WHERE "_hash" > {position.after}'
    last, until = None, "true"
    if rows_max is not None:
        found = cursor.execute(
            f'SELECT max("_hash"), count(*) FROM (SELECT "_hash" FROM ({rest}) ORDER BY 1 LIMIT {rows_max})'
        ).fetchall()[0]
        if found[1] == rows_max:
            last, until = found[0], f'"_hash" <= {found[0]}'
    piece = f"SELECT * FROM ({rest}) WHERE {until}"
    ordered = f'{_numbered(plan, piece) if numbered else piece} ORDER BY "_hash"'
    rows = bare_arrow_of(cursor, ordered)
    return rows, done if last is None else Position(position.epoch, position.through, last)


def removed_keys(
    cursor: Any, plan: TablePlan, position: Position, *, expired_after: int | None, json_nested: bool = False
) -> pa.Table:
    """Return the keys of rows that left the table in a span: the key's columns (or "_key"), and "_epoch".

    Rows that left because they were older than the table's `keep` are among them with `expired_after`: those
    of epochs behind it.
    """
    types = {column.name: column.type for column in plan.columns}
    if plan.key:
        cells = ", ".join(
            f"{_of_json(plan, name, types[name], json_nested)} AS {quoted(name)}" for name in plan.key
        )
    else:
        cells = '"key" AS "_key"'
    return bare_arrow_of(
        cursor,
        f'SELECT {cells}, max(epoch) AS "_epoch" FROM {_removed(plan, expired_after)} '
        f"AND epoch > {position.epoch} AND epoch <= {position.through} GROUP BY ALL",
    )


def view_rows(cursor: Any, plan: TablePlan, *, rows_max: int, json_nested: bool = False) -> pa.Table:
    """Return the rows of a view, one more than `rows_max` at most, so that its reader sees when it is cut."""
    cells = ", ".join(_shown(quoted(c.name), c.type, json_nested) for c in plan.columns)
    return bare_arrow_of(cursor, f"SELECT {cells} FROM {quoted(plan.name)} LIMIT {rows_max + 1}")


# --- the text of the queries


def _removed(plan: TablePlan, expired_after: int | None) -> str:
    """Return the entries of rows that left a table, as far as a replica takes them out, with a condition."""
    expired = "" if expired_after is None else f" OR epoch > {expired_after}"
    return (
        f'_headrace._removed WHERE "table" = {text_literal(plan.name)} AND "key" IS NOT NULL '
        f"AND (reason <> '{EXPIRED}'{expired})"
    )


def _where(plan: TablePlan, position: Position, closing: Closing | None) -> str:
    epochs = f"t._epoch <= {position.through}"
    if closing is None:
        return f"t._epoch > {position.epoch} AND {epochs}"
    if closing.through is None:
        return "false"
    over = ended(plan, closing.through)
    before = "false" if closing.before is None else ended(plan, closing.before)
    return f"{epochs} AND {over} AND (NOT ({before}) OR t._epoch > {position.epoch})"


def _rows_sql(
    plan: TablePlan, where: str, hashed: bool, *, revision: bool, json_nested: bool, addressed: bool
) -> str:
    if plan.kind is TableClass.ROWS:
        cells = [_shown(f"t.{quoted(c.name)}", c.type, json_nested, name=c.name) for c in plan.columns]
        known = [f"t.{quoted(name)}" for name in plan.key] or ["t._partition", "t._offset"]
        hash_of = f"to_json(list_value({', '.join(f'CAST({name} AS VARCHAR)' for name in known)}))"
        more = ["t._epoch"] + ([_ADDRESS] if addressed else [])
        more += [f'{_hash(hash_of)} AS "_hash"'] if hashed else []
        return f"SELECT {', '.join(cells + more)} FROM {state_name(plan.name)} t WHERE {where}"
    shown = ", ".join(_shown(quoted(c.name), c.type, json_nested) for c in plan.columns)
    more = ['"_epoch"']
    more += [] if plan.key else [f'{removal_key(plan)} AS "_key"']
    more += ['"_revision"'] if revision else []
    more += [f'{_hash(removal_key(plan, exact=False))} AS "_hash"'] if hashed else []
    names = ", ".join(each.rsplit(" AS ", 1)[-1] for each in more)
    return (
        f'WITH "_groups" AS ({groups_sql(plan, where=where)}) SELECT {shown}, {names} FROM '
        f'(SELECT {result_columns(plan)}, {", ".join(more)} FROM "_groups"{having_condition(plan)})'
    )


_ADDRESS = "concat_ws(':', t._epoch, t._partition, t._offset) AS \"_key\""


def _numbered(plan: TablePlan, rows: str) -> str:
    """Return rows of a table without a key, with a "_key" that is each one's own.

    One record may give several rows, and equal ones. They have one epoch and one hash, so they are always
    read together. The content is in it for targets that hold rows of another store, too.
    """
    columns = ", ".join(quoted(column.name) for column in plan.columns)
    number = f'row_number() OVER (PARTITION BY "_key" ORDER BY {columns})'
    content = f"left(md5(CAST(row({columns}) AS VARCHAR)), 12)"
    return f'SELECT * REPLACE (concat_ws(\':\', "_key", {number}, {content}) AS "_key") FROM ({rows})'


def _hash(text: str) -> str:
    # Not DuckDB's own hash, which another version may compute otherwise while a span is half copied.
    return f"CAST(md5_number_lower(CAST({text} AS VARCHAR)) >> 1 AS BIGINT)"


def is_nested(kind: str) -> bool:
    """Return whether a DuckDB type holds others."""
    return kind.endswith("]") or kind.startswith(_NESTED)


def _shown(expression: str, kind: str, json_nested: bool, name: str | None = None) -> str:
    alias = expression if name is None else quoted(name)
    if json_nested and is_nested(kind):
        return f"CAST(to_json({expression}) AS VARCHAR) AS {alias}"
    return f"{expression} AS {alias}"


def _of_json(plan: TablePlan, name: str, kind: str, json_nested: bool) -> str:
    """Return the expression that reads a column of a key back from its JSON text."""
    at = _path(name)
    if is_nested(kind) and json_nested:
        return f'CAST(json_extract("key", {at}) AS VARCHAR)'
    if kind.startswith("DECIMAL") or is_nested(kind):
        # A cast would lose digits, and knows no MAP of JSON.
        before = _read_as(name, kind)
        if (textual := textual_type(kind)) == kind:
            return before
        return f"coalesce(CAST({_read_as(exact_name(plan, name), textual)} AS {kind}), {before})"
    if kind == "JSON":  # json_extract_string would take the quotes off a text, which is no JSON then
        before = f"nullif(CAST(json_extract(\"key\", {at}) AS VARCHAR), 'null')"  # by a version without it
        exact = f'json_extract_string("key", {_path(exact_name(plan, name))})'
        return f"CAST(coalesce({exact}, {before}) AS JSON)"
    return f'CAST(json_extract_string("key", {at}) AS {kind})'


def _read_as(name: str, kind: str) -> str:
    # The key has BLOBs as the texts that they are cast from; from_json would take the bytes of those texts.
    texts = _BLOB_INSIDE.sub(lambda found: "VARCHAR" if found[0] == "BLOB" else found[0], kind)
    read = f'from_json("key", {text_literal(json.dumps({name: texts}))}).{quoted(name)}'
    return read if texts == kind else f"CAST({read} AS {kind})"


def _path(name: str) -> str:
    return text_literal("$." + '"' + name.replace('"', '\\"') + '"')
