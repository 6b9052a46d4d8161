"""Routes about rows: tables, the SQL console, the pipeline's panels."""

from __future__ import annotations

from itertools import takewhile
from textwrap import dedent
from typing import Annotated

from fastapi import APIRouter, Path, Query

from headrace.errors import RefusedError
from headrace.sql.system import system_relations
from headrace.store.names import quoted, text_literal
from headrace.web.page import models
from headrace.web.page.console import ask_console
from headrace.web.page.sources import PageSources
from headrace.web.page.tracing import why

__all__ = ["table_routes"]

_PANEL_ROWS_MAX = 5_000

NamePart = Annotated[str, Path(max_length=200)]


def table_routes(sources: PageSources) -> APIRouter:
    """Return the routes."""
    router = APIRouter(
        prefix="/api",
        tags=["tables"],
        responses={422: models.REFUSED, 503: {"model": models.Failure}},
    )

    @router.get("/tables/{name}/rows")
    def rows(
        name: NamePart,
        limit: Annotated[int, Query(ge=1, le=1_000)] = 200,
        offset: Annotated[int, Query(ge=0, le=10_000_000)] = 0,
        order: Annotated[str, Query(max_length=200)] = "",
        descending: bool = False,
        contains: Annotated[str, Query(max_length=200)] = "",
    ) -> models.Rows:
        """Rows of a table, a view or a system relation; `contains` looks into every column."""
        sql = _rows_sql(sources, name, order=order, descending=descending, contains=contains)
        found = sources.rows(f"{sql} LIMIT {limit + 1} OFFSET {offset}", rows_max=limit)
        return models.Rows.model_validate(found)

    @router.post("/tables/{name}/why")
    def why_row(name: NamePart, asked: models.WhyRow) -> models.Why:
        """The records behind a row of a table, found in the log again; and what was left out, and why."""
        return models.Why.model_validate(why(sources, name, asked.row))

    @router.post("/query")
    def query(asked: models.Query) -> models.Rows:
        """Run one SELECT in a process of its own: read only, without files, 5 seconds at most."""
        with sources.slot():
            found = ask_console(sources.runtime, asked.sql, rows_max=asked.rows_max)
        return models.Rows.model_validate(found)

    @router.get("/panels")
    def panels() -> list[models.PanelLine]:
        """The panels of the pipeline."""
        return [
            models.PanelLine(
                number=number,
                title=each.title,
                kind=each.kind,
                unit=each.unit,
                query=dedent(each.query).strip(),
                about=_about(each.query),
            )
            for number, each in enumerate(sources.runtime.plan.panels)
        ]

    @router.get("/panels/{number}/rows")
    def panel_rows(number: Annotated[int, Path(ge=0, le=10_000)]) -> models.Rows:
        """What a panel's query gives now."""
        declared = sources.runtime.plan.panels
        if number >= len(declared):
            raise RefusedError("there is no such panel", fix="ask GET /api/panels")
        return models.Rows.model_validate(sources.rows(declared[number].query, rows_max=_PANEL_ROWS_MAX))

    return router


def _about(query: str) -> str:
    lines = takewhile(lambda line: line.startswith("--"), map(str.strip, query.strip().splitlines()))
    return " ".join(line.removeprefix("--").strip() for line in lines)


def _rows_sql(sources: PageSources, name: str, *, order: str, descending: bool, contains: str) -> str:
    plan = sources.runtime.plan
    known = {each.name: [column.name for column in each.columns] for each in plan.tables}
    for relation, held in system_relations(plan.streams.values()).items():
        known[relation] = [column.name for column in held]
    if name not in known:
        raise RefusedError("there is no such table", fix="there are: " + ", ".join(sorted(known)))
    columns = known[name]
    if order and order not in columns:
        raise RefusedError("the table has no such column", fix="it has: " + ", ".join(columns))
    where = ""
    if contains:
        text = text_literal(contains)
        where = " WHERE " + " OR ".join(
            f"contains(lower(CAST({quoted(each)} AS VARCHAR)), lower({text}))" for each in columns
        )
    ordered = f" ORDER BY {quoted(order)} {'DESC' if descending else 'ASC'} NULLS LAST" if order else ""
    return f"SELECT * FROM {quoted(name)}{where}{ordered}"
