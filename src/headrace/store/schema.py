"""The relations of a store: what the engine writes, and the views that users read."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from headrace.sql.plan import Aggregate, PipelinePlan, StreamPlan, TableClass, TablePlan
from headrace.sql.system import SYSTEM_RELATIONS, late_columns
from headrace.store.instants import micros_of_length
from headrace.store.names import keys_name, late_name, quoted, side_name, state_name, text_literal

__all__ = [
    "SCHEMA_VERSION",
    "attempt",
    "create_table",
    "drop_table",
    "exact_name",
    "failed_cells_view",
    "finished_columns",
    "groups_sql",
    "has_column",
    "having_condition",
    "key_columns",
    "key_json",
    "removal_key",
    "result_columns",
    "state_columns",
    "stream_relations",
    "system_statements",
    "table_view",
    "textual_type",
]

SCHEMA_VERSION = 4

TIME = "TIMESTAMP WITH TIME ZONE"

_SYSTEM = """
CREATE SCHEMA IF NOT EXISTS _state;
CREATE SCHEMA IF NOT EXISTS _headrace;
CREATE TABLE IF NOT EXISTS _headrace.meta (name VARCHAR, value VARCHAR);
CREATE TABLE IF NOT EXISTS _headrace.progress (body VARCHAR);
CREATE TABLE IF NOT EXISTS _headrace.epochs (
    epoch BIGINT, committed_at TIMESTAMPTZ, records BIGINT, seconds DOUBLE);
CREATE TABLE IF NOT EXISTS _headrace.minutes (
    stream VARCHAR, minute TIMESTAMPTZ, kind VARCHAR, name VARCHAR, records BIGINT, warned BIGINT, rejected
    BIGINT);
CREATE TABLE IF NOT EXISTS _headrace.dead_letters (
    stream VARCHAR, lane VARCHAR, partition INTEGER, "offset" BIGINT, record_time TIMESTAMPTZ,
    outcome VARCHAR,
    reasons STRUCT("rule" VARCHAR, detail VARCHAR)[], event_time TIMESTAMPTZ, "key" BLOB, "value" BLOB,
    headers STRUCT("key" VARCHAR, "value" BLOB)[], epoch BIGINT);
CREATE TABLE IF NOT EXISTS _headrace.duplicates (
    stream VARCHAR, lane VARCHAR, partition INTEGER, "offset" BIGINT, event_time TIMESTAMPTZ, "value" VARCHAR,
    conflicting BOOLEAN, epoch BIGINT);
CREATE TABLE IF NOT EXISTS _headrace.failed_rows (
    "table" VARCHAR, stream VARCHAR, lane VARCHAR, partition INTEGER, "offset" BIGINT,
    reason VARCHAR, epoch BIGINT);
CREATE TABLE IF NOT EXISTS _headrace.redriven (
    stream VARCHAR, partition INTEGER, "offset" BIGINT, epoch BIGINT);
CREATE TABLE IF NOT EXISTS _headrace.taken (
    stream VARCHAR, lane VARCHAR, partition INTEGER, "offset" BIGINT);
CREATE TABLE IF NOT EXISTS _headrace._removed ("table" VARCHAR, "key" VARCHAR, epoch BIGINT, reason VARCHAR);
CREATE TABLE IF NOT EXISTS _headrace.row_files (
    "table" VARCHAR, epoch BIGINT, name VARCHAR, folder VARCHAR, "rows" BIGINT, bytes BIGINT,
    refused VARCHAR[][]);
CREATE TABLE IF NOT EXISTS _headrace.takings (
    replica VARCHAR, "table" VARCHAR, generation BIGINT, ceiling BIGINT);
CREATE TABLE IF NOT EXISTS _headrace._closings ("table" VARCHAR, closed_through TIMESTAMPTZ, epoch BIGINT);
CREATE TABLE IF NOT EXISTS _headrace."references" (
    name VARCHAR, version VARCHAR, valid_from TIMESTAMPTZ, valid_to TIMESTAMPTZ);
CREATE TABLE IF NOT EXISTS _headrace.series (series INTEGER, name VARCHAR, labels VARCHAR);
CREATE TABLE IF NOT EXISTS _headrace.samples (time TIMESTAMPTZ, series INTEGER, value DOUBLE);
CREATE TABLE IF NOT EXISTS _headrace.sample_minutes (
    minute TIMESTAMPTZ, series INTEGER, value DOUBLE, least DOUBLE, greatest DOUBLE);
CREATE OR REPLACE VIEW metrics AS
    SELECT time, name, labels, value FROM _headrace.samples JOIN _headrace.series USING (series);
CREATE OR REPLACE VIEW metrics_by_minute AS
    SELECT minute, name, labels, value, least, greatest
    FROM _headrace.sample_minutes JOIN _headrace.series USING (series);
CREATE OR REPLACE VIEW outcomes_by_minute AS
    SELECT stream, minute, name AS outcome, CAST(sum(records) AS BIGINT) AS records
    FROM _headrace.minutes WHERE kind = 'outcome' GROUP BY ALL;
CREATE OR REPLACE VIEW reasons_by_minute AS
    SELECT stream, minute, kind AS outcome, name AS reason, CAST(sum(records) AS BIGINT) AS records
    FROM _headrace.minutes WHERE kind NOT IN ('outcome', 'rule') GROUP BY ALL;
CREATE OR REPLACE VIEW rule_checks AS
    SELECT stream, minute, name AS "rule", CAST(sum(records) AS BIGINT) AS checked,
           CAST(sum(warned) AS BIGINT) AS warned, CAST(sum(rejected) AS BIGINT) AS rejected
    FROM _headrace.minutes WHERE kind = 'rule' GROUP BY ALL
"""


def system_statements() -> Iterator[str]:
    """Give the statements that make what every store has; each may be run again."""
    yield from _SYSTEM.split(";")
    for name in ("dead_letters", "epochs"):
        columns = ", ".join(quoted(column.name) for column in SYSTEM_RELATIONS[name])
        yield f"CREATE OR REPLACE VIEW {quoted(name)} AS SELECT {columns} FROM _headrace.{quoted(name)}"


def stream_relations(plan: StreamPlan) -> Iterator[str]:
    """Give the statements that make what a stream needs: remembered unique values and late rows."""
    name = plan.stream.name
    if plan.stream.unique:
        yield keys_relation(keys_name(name))
    columns = ", ".join(f"{quoted(column.name)} {column.type}" for column in late_columns(plan))
    yield f"CREATE TABLE IF NOT EXISTS {late_name(name)} ({columns}, _event_time {TIME}, _epoch BIGINT)"
    shown = ", ".join(quoted(column.name) for column in late_columns(plan))
    yield f"CREATE OR REPLACE VIEW {quoted(f'late_{name}')} AS SELECT {shown} FROM {late_name(name)}"


def keys_relation(name: str) -> str:
    """Return the statement that makes a relation of remembered unique values, which is kept in time order."""
    return (
        f"CREATE TABLE IF NOT EXISTS {name} "
        f"(event_time {TIME}, key_hash UBIGINT, content_hash UBIGINT, value VARCHAR)"
    )


def state_columns(plan: TablePlan) -> list[tuple[str, str]]:
    """Return the columns that a table's state holds for a group: bounds, keys, aggregates (name and type)."""
    columns: list[tuple[str, str]] = []
    if plan.window is not None:
        columns.append(("window_start", TIME))
    if plan.kind is TableClass.SESSION:
        columns.append(("window_end", TIME))
    columns += [(key.name, key.type) for key in plan.keys]
    columns += [(state.name, state.type) for aggregate in plan.aggregates for state in aggregate.state]
    return columns


def finished_columns(plan: TablePlan) -> list[tuple[str, str]]:
    """Return the columns in which a table keeps what closed windows had in its side tables (name and type).

    The first one says whether the others hold. A table that has no windows with an end has none.
    """
    kept = [(aggregate.name, aggregate.type) for aggregate in plan.aggregates if aggregate.side is not None]
    return [("_finished", "BOOLEAN"), *kept] if kept and plan.kind is TableClass.WINDOWED else []


def has_column(connection: Any, plan: TablePlan, column: str) -> bool:
    """Return whether the state of a table has a column in this store, which may be of an earlier time."""
    found = connection.execute(
        "SELECT 1 FROM duckdb_columns() WHERE schema_name = '_state' AND table_name = ? AND column_name = ?",
        [plan.name, column],
    ).fetchall()
    return bool(found)


def key_columns(plan: TablePlan) -> list[str]:
    """Return the quoted columns of the state by which its rows are told apart."""
    start = ["window_start"] if plan.window is not None else []
    return start + [quoted(key.name) for key in plan.keys]


def create_table(plan: TablePlan) -> Iterator[str]:
    """Give the statements that make the state of a table, empty."""
    if plan.kind is TableClass.VIEW:
        return
    if plan.kind is TableClass.ROWS:
        columns = ", ".join(f"{quoted(column.name)} {column.type}" for column in plan.columns)
        yield (
            f"CREATE TABLE {state_name(plan.name)} ({columns}, _time {TIME}, _record_time {TIME}, "
            "_partition INTEGER, _offset BIGINT, _epoch BIGINT)"
        )
        return
    columns = "".join(f"{quoted(name)} {kind}, " for name, kind in state_columns(plan))
    shown = ", _shown BOOLEAN" if plan.having_sql else ""
    finished = "".join(f", {quoted(name)} {kind}" for name, kind in finished_columns(plan))
    yield f"CREATE TABLE {state_name(plan.name)} ({columns}_epoch BIGINT, _revision INTEGER{shown}{finished})"
    start = f"window_start {TIME}, " if plan.window is not None else ""
    keys = "".join(f"{quoted(key.name)} {key.type}, " for key in plan.keys)
    for aggregate in plan.aggregates:
        if aggregate.side is not None:
            yield (
                f"CREATE TABLE {side_name(plan.name, aggregate.name)} "
                f'({start}{keys}"_value" {aggregate.side.type}, "_count" BIGINT, _epoch BIGINT)'
            )
    if plan.kind is TableClass.KEYED and not plan.keys:
        # A table without keys has its one row from the start: the partial over no rows is the empty group.
        empty = "".join(f"{state.partial}, " for a in plan.aggregates for state in a.state)
        arguments = (
            ", ".join(f"CAST(NULL AS {kind}) AS {quoted(name)}" for name, kind in _arguments(plan))
            or "NULL AS _none"
        )
        hidden = ", NULL" if plan.having_sql else ""
        yield (
            f"INSERT INTO {state_name(plan.name)} SELECT {empty}0, 0{hidden} FROM (SELECT {arguments}) "
            "WHERE false HAVING count(*) >= 0"
        )


def _arguments(plan: TablePlan) -> list[tuple[str, str]]:
    named = {column.name: column.type for aggregate in plan.aggregates for column in aggregate.arguments}
    return list(named.items())


def drop_table(plan_name: str, relations: list[str]) -> Iterator[str]:
    """Give the statements that take a table out of the store: its view, its state, its side tables."""
    yield f"DROP VIEW IF EXISTS {quoted(plan_name)}"
    for relation in relations:
        if relation == plan_name or re.fullmatch(re.escape(plan_name) + r"__g\d+", relation):
            yield f"DROP TABLE IF EXISTS _state.{quoted(relation)}"


def groups_sql(plan: TablePlan, *, where: str = "") -> str:
    """Return the query that gives `_groups`: keys, bounds and the values of all aggregates, and `_epoch`.

    `where` is a condition over the state `t`.
    """
    columns = []
    if plan.kind is TableClass.WINDOWED and plan.window is not None:
        size = micros_of_length(plan.window.size)
        columns = ["t.window_start", f"make_timestamptz(epoch_us(t.window_start) + {size}) AS window_end"]
    elif plan.kind is TableClass.SESSION:
        columns = ["t.window_start", "t.window_end"]
    columns += [f"t.{quoted(key.name)}" for key in plan.keys]
    joins = ""
    for aggregate in plan.aggregates:
        if aggregate.side is None:
            columns.append(f"{aggregate.value} AS {quoted(aggregate.name)}")
            continue
        alias = quoted(f"s_{aggregate.name}")
        columns.append(f"{_side_value(plan, aggregate, alias)} AS {quoted(aggregate.name)}")
        joins += f" LEFT JOIN ({_side_groups(plan, aggregate, where)}) {alias} ON {_same(plan, alias, 't')}"
    hidden = ["t._epoch", "t._revision"] + (["t._shown"] if plan.having_sql else [])
    condition = f" WHERE {where}" if where else ""
    return f"SELECT {', '.join(columns + hidden)} FROM {state_name(plan.name)} t{joins}{condition}"


def _same(plan: TablePlan, left: str, right: str) -> str:
    """Return the condition that rows of two relations are of one group."""
    conditions = [f"{left}.{key} IS NOT DISTINCT FROM {right}.{key}" for key in key_columns(plan)]
    if plan.window is not None:
        # Never NULL; and only by an equality is a scan bounded to the times of the other relation.
        conditions[0] = f"{left}.window_start = {right}.window_start"
    return " AND ".join(conditions) or "true"


def _side_value(plan: TablePlan, aggregate: Aggregate, alias: str) -> str:
    assert aggregate.side is not None  # noqa: S101 - the caller looked
    kept = f"WHEN t._finished THEN t.{quoted(aggregate.name)} " if finished_columns(plan) else ""
    return f"CASE {kept}WHEN {alias}._there THEN {alias}._of_side ELSE {aggregate.side.empty} END"


def _side_groups(plan: TablePlan, aggregate: Aggregate, where: str) -> str:
    """Return the value of the groups of a side table that are asked for; its rows are counts that add up."""
    assert aggregate.side is not None  # noqa: S101 - the caller looked
    keys = "".join(f"{key}, " for key in key_columns(plan))
    source = f"{side_name(plan.name, aggregate.name)} x"
    asked = ["t._finished IS NULL"] if finished_columns(plan) else []
    asked += [f"({where})"] if where else []
    if asked and keys and plan.kind is not TableClass.SESSION:
        groups = f"SELECT {keys.rstrip(', ')} FROM {state_name(plan.name)} t WHERE {' AND '.join(asked)}"
        source = f"(SELECT x.* FROM {source} SEMI JOIN ({groups}) o ON {_same(plan, 'x', 'o')})"
    if plan.kind is TableClass.SESSION:
        # A side row stands at the start of a piece of a session, which lies within the session whatever it
        # grows to.
        same = "".join(
            f" AND x.{quoted(key.name)} IS NOT DISTINCT FROM s.{quoted(key.name)}" for key in plan.keys
        )
        source = (
            f"(SELECT s.window_start, x.* EXCLUDE (window_start) FROM {source} JOIN "
            f"{state_name(plan.name)} s "
            f"ON x.window_start >= s.window_start AND x.window_start < s.window_end{same})"
        )
    counted = f'SELECT {keys}"_value", CAST(sum("_count") AS BIGINT) AS "_count" FROM {source} GROUP BY ALL'
    if aggregate.side.ranked:
        over = f"PARTITION BY {keys.rstrip(', ')} " if keys else ""
        whole = "ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING"
        counted = (
            'SELECT *, CAST(sum("_count") OVER (ranks ROWS UNBOUNDED PRECEDING) AS BIGINT) AS "_upto", '
            f'CAST(sum("_count") OVER (ranks {whole}) AS BIGINT) AS "_all" '
            f'FROM ({counted}) WINDOW ranks AS ({over}ORDER BY "_value")'
        )
    group = f" GROUP BY {keys.rstrip(', ')}" if keys else ""
    there = "" if keys else " HAVING count(*) > 0"
    return f"SELECT {keys}{aggregate.side.value} AS _of_side, true AS _there FROM ({counted}){group}{there}"


def attempt(expression: str) -> str:
    """Return an expression over `_groups` that is NULL where `expression` fails.

    What several expressions have in common, or one has twice, DuckDB computes before them, outside of their
    TRY: a table could not be read at all when that failed for one row. It takes nothing out of a CASE; the
    condition of this one is true of every row.
    """
    return f'CASE WHEN "_epoch" >= 0 THEN TRY({expression}) END'


def having_condition(plan: TablePlan) -> str:
    """Return the condition over `_groups` of a table's HAVING, with WHERE before it, or nothing."""
    return f" WHERE {attempt(plan.having_sql)}" if plan.having_sql else ""


def _is_plain(expression: str) -> bool:
    return re.fullmatch(r'"?\w+"?', expression.strip()) is not None


def result_columns(plan: TablePlan, *, safe: bool = True) -> str:
    """Return the select list of a table's result part; with `safe`, a cell that fails is NULL."""
    cells = []
    for column, expression in zip(plan.columns, plan.result_sql, strict=True):
        text = expression if _is_plain(expression) or not safe else attempt(expression)
        cells.append(f"{text} AS {quoted(column.name)}")
    return ", ".join(cells)


def table_view(plan: TablePlan) -> str:
    """Return the statement that makes a table's view, under its own name with its declared columns only."""
    name = quoted(plan.name)
    if plan.kind is TableClass.VIEW:
        return f"CREATE OR REPLACE VIEW {name} AS {plan.view_sql}"
    if plan.kind is TableClass.ROWS:
        columns = ", ".join(quoted(column.name) for column in plan.columns)
        return f"CREATE OR REPLACE VIEW {name} AS SELECT {columns} FROM {state_name(plan.name)}"
    return (
        f'CREATE OR REPLACE VIEW {name} AS WITH "_groups" AS ({groups_sql(plan)}) '
        f'SELECT {result_columns(plan)} FROM "_groups"{having_condition(plan)}'
    )


def failed_cells_view(plan: PipelinePlan) -> str:
    """Return the statement that makes the relation which counts the cells of results that fail.

    It counts when it is read, and what the tables show then: it depends on their state alone, as they do.
    """
    counts = [query for table in plan_tables(plan) if (query := _failed_cells(table))]
    none = ", ".join(f"CAST(NULL AS {c.type}) AS {c.name}" for c in SYSTEM_RELATIONS["failed_cells"])
    counted = " UNION ALL ".join(counts) or f"SELECT {none} WHERE false"
    return f"CREATE OR REPLACE VIEW failed_cells AS {counted}"


def _failed_cells(plan: TablePlan) -> str:
    """Return the query that counts the failing cells of a table by column; nothing where no cell can fail."""
    cells = zip(plan.columns, plan.result_sql, strict=True) if plan.result_sql else ()
    tried = {column.name: expression for column, expression in cells if not _is_plain(expression)}
    shown = f" AND coalesce({attempt(plan.having_sql)}, false)" if plan.having_sql else ""
    failing = {text_literal(name): _fails(expression) + shown for name, expression in tried.items()}
    if plan.having_sql:
        failing["'HAVING'"] = _fails(plan.having_sql)
    if not failing:
        return ""
    used = set(re.findall(r"\w+", " ".join([*tried.values(), plan.having_sql])))
    groups = groups_sql(replace(plan, aggregates=tuple(a for a in plan.aggregates if a.name in used)))
    counts = ", ".join(f"count(*) FILTER (WHERE {condition})" for condition in failing.values())
    return (
        f"SELECT {text_literal(plan.name)} AS table_name, unnest([{', '.join(failing)}]) AS column_name, "
        f'unnest(counts) AS cells FROM (SELECT [{counts}] AS counts FROM ({groups}) "_groups")'
    )


def _fails(expression: str) -> str:
    return f"{attempt(f'({expression}) IS NULL')} IS NULL"


def removal_key(plan: TablePlan, *, exact: bool = True) -> str:
    """Return an expression over `_groups` that gives a row's key as JSON text; see `key_json`.

    By output columns where it has any.
    """
    if plan.key:
        expressions = dict(zip((column.name for column in plan.columns), plan.result_sql, strict=True))
        return key_json(plan, {name: expressions[name] for name in plan.key}, exact=exact)
    return key_json(plan, {name.strip('"'): name for name in key_columns(plan)}, exact=False)


def key_json(plan: TablePlan, cells: Mapping[str, str], *, exact: bool = True) -> str:
    """Return an expression that gives a key as JSON text, of an expression for each of its columns.

    DuckDB writes numbers of JSON within it anew (1.50 as 1.5), and a target may have them as they were: with
    `exact`, a column that is of type JSON, or holds values of it, is there once more under `exact_name`, with
    texts for them.
    """
    if not cells:
        return "'{}'"
    parts, types = list(cells.items()), {column.name: column.type for column in plan.columns}
    if exact:
        parts += [
            (exact_name(plan, name), f"CAST({cell} AS {textual})")
            for name, cell in cells.items()
            if (textual := textual_type(types.get(name, ""))) != types.get(name, "")
        ]
    named = ", ".join(f"{quoted(name)} := {expression}" for name, expression in parts)
    return f"CAST(to_json(struct_pack({named})) AS VARCHAR)"


_JSON_INSIDE = re.compile(r"""\"[^\"]*\"|'[^']*'|\bJSON(?=[,)\[]|$)""")


def textual_type(kind: str) -> str:
    """Return a DuckDB type with VARCHAR wherever it says JSON; a field that is called so stays."""
    return _JSON_INSIDE.sub(lambda found: "VARCHAR" if found[0] == "JSON" else found[0], kind)


def exact_name(plan: TablePlan, column: str) -> str:
    """Return under which name the text of a key's column is beside it, which no other column of it has."""
    taken = {name.lower() for name in plan.key}
    name = f"={column}"
    while name.lower() in taken:
        name = f"={name}"
    return name


def plan_tables(plan: PipelinePlan) -> list[TablePlan]:
    """Return the tables that have a state of their own."""
    return [table for table in plan.tables if table.kind is not TableClass.VIEW]
