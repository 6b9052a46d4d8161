"""What became of a query, in words: its class, its three parts, its state, and what each engine runs."""

from __future__ import annotations

from collections.abc import Iterable

from headrace.declare import format_duration
from headrace.declare.words import did_you_mean
from headrace.errors import DeclarationError, Problem
from headrace.sql.plan import Aggregate, PipelinePlan, TableClass, TablePlan

__all__ = ["explain_table"]


def explain_table(plan: PipelinePlan, name: str) -> str:
    """Return the explanation of one table; raises DeclarationError when there is none of this name."""
    table = next((table for table in plan.tables if table.name.lower() == name.lower()), None)
    if table is None:
        names = [table.name for table in plan.tables]
        hint = f"there are {', '.join(names)}" if names else "declare one with pipeline.table"
        raise DeclarationError(
            [Problem("", 0, f"table '{name}'", f"there is none{did_you_mean(name, names)}", hint)]
        )
    return "\n".join(
        [*_head(table), *(_view(table) if table.kind is TableClass.VIEW else _parts(plan, table))]
    )


def _head(table: TablePlan) -> Iterable[str]:
    yield f"{table.name}: {table.kind}{_window(table)}"
    yield f"  reads      {', '.join(table.sources)}"
    if table.references:
        yield f"  joins      {', '.join(table.references)} (as it was at the record's record time)"
    yield f"  row key    {', '.join(table.key) or 'none'}"
    yield "  columns    " + _listed(f"{column.name} {column.type}" for column in table.columns)


def _window(table: TablePlan) -> str:
    window = table.window
    if window is None:
        return ""
    size, slide = format_duration(window.size), format_duration(window.slide)
    if window.kind == "session":
        return f", a session ends after a gap of {size}"
    return f", {size} every {slide}" if window.kind == "sliding" else f", every {size}"


def _listed(parts: Iterable[str]) -> str:
    return "\n             ".join(parts)


def _view(table: TablePlan) -> Iterable[str]:
    yield ""
    yield "view: DuckDB runs it when it is read"
    yield f"  {table.view_sql}"
    yield ""
    yield "engines"
    yield "  local      a view in the store"
    yield "  spark      the same view in the same store"


def _parts(plan: PipelinePlan, table: TablePlan) -> Iterable[str]:
    yield ""
    yield "row part: DuckDB over batches of records, on both engines"
    yield f"  {table.row_sql}"
    for derived in plan.streams[table.sources[0]].derived:
        if derived.name not in table.row_sql:
            continue
        yield f"  derived    {derived.name} {derived.type} = {derived.sql}"
    if table.kind is TableClass.ROWS:
        yield ""
        yield "engines"
        statement = (
            f"one MERGE INTO by {', '.join(table.key)}: the latest wins" if table.key else "one INSERT"
        )
        yield f"  local      the row part of the batch, then {statement}"
        yield "  spark      executors: the row part of what they read; driver: the same statement"
        return
    yield ""
    yield "aggregate part: one row of state per " + _group(table)
    for position, key in enumerate(table.keys):
        yield f"  k{position}         {key.type}"
    for aggregate in table.aggregates:
        yield from _aggregate(aggregate)
    yield ""
    yield "result part: DuckDB, as a view over the state"
    for column, sql in zip(table.columns, table.result_sql, strict=True):
        yield f"  {column.name} = {sql}"
    if table.having_sql:
        yield f"  HAVING {table.having_sql}"
    yield ""
    yield "engines"
    yield from _engines(table)


def _group(table: TablePlan) -> str:
    parts = [str(table.window.kind) + " window"] if table.window else []
    parts += ["key"] if table.keys else []
    return " and ".join(parts) or "table"


def _aggregate(aggregate: Aggregate) -> Iterable[str]:
    arguments = (
        ", ".join([*(argument.name for argument in aggregate.arguments), *aggregate.parameters]) or "*"
    )
    mark = ", approximate" if aggregate.approximate else ""
    yield f"  {aggregate.name}         {aggregate.function}({arguments}) {aggregate.type}{mark}"
    for column in aggregate.state:
        yield f"             {column.name} {column.type} = {column.partial}"
    if aggregate.side:
        side = aggregate.side
        yield f"             side table: values of {side.argument} {side.type} and their counts"


def _engines(table: TablePlan) -> Iterable[str]:
    sides = ", ".join(aggregate.name for aggregate in table.aggregates if aggregate.side)
    if table.kind is TableClass.SESSION:
        yield "  local      sessions that touch are merged: DELETE and INSERT in one transaction"
    elif table.keys or table.window:
        yield "  local      partial aggregates of the batch, then one MERGE INTO the state"
    else:
        yield "  local      partial aggregates of the batch, then one UPDATE of the row"
    if sides:
        yield f"             and INSERTs of counted values for {sides}, added up now and then"
    yield "  spark      executors: row part and partial aggregates of what they read; driver: adds them up,"
    yield "             and the same statements"
