"""The pipeline's panels for the tools that watch its replicas: what can be shown there, and what cannot."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from headrace.declare import Panel
from headrace.declare.words import did_you_mean
from headrace.errors import ProfileError
from headrace.operate.project import Project
from headrace.replicate.shapes import shape_of, tables_of
from headrace.sql import plan_pipeline
from headrace.sql.panel_query import PanelQuery, read_panel
from headrace.sql.session import Session
from headrace.sql.syntax import QueryError

if TYPE_CHECKING:
    from headrace.observe.export_kibana import DataView, Shown
    from headrace.replicate.elasticsearch import ElasticsearchReplica
    from headrace.replicate.protocol import TableShape

__all__ = [
    "LeftOut",
    "copied_by",
    "indices_of",
    "panels_for",
    "replicas_of",
    "search_replica",
    "searched_panels",
]

SEARCH_KINDS = ("elasticsearch", "opensearch")

_Made = TypeVar("_Made")


@dataclass(frozen=True)
class LeftOut:
    """A panel that cannot be shown there, and why."""

    title: str
    reason: str


def replicas_of(project: Project, kinds: tuple[str, ...]) -> dict[str, Any]:
    """Return the replicas of some kinds, by name."""
    return {name: each for name, each in project.profile.replicas.items() if each.kind in kinds}


def copied_by(project: Project, replica: str) -> tuple[TableShape, ...]:
    """Return what the tables of a replica look like there."""
    options = project.profile.replicas[replica]
    plan = plan_pipeline(project.pipeline)
    return tuple(shape_of(table, options) for table in tables_of(plan, options, replica))


def indices_of(project: Project, replica: str) -> dict[str, str]:
    """Return the index of each table that a search replica copies."""
    from headrace.replicate.elasticsearch.mapping import index_names

    options: ElasticsearchReplica = project.profile.replicas[replica]
    return index_names(options, copied_by(project, replica), replica)


def search_replica(project: Project, named: str | None) -> str:
    """Return the name of the one search replica, or check the named one. Raises ProfileError."""
    known = replicas_of(project, SEARCH_KINDS)
    if named is not None and named in known:
        return named
    where = f"profile '{project.profile.name}'"
    if named is not None:
        raise ProfileError(
            f"{where} has no search replica '{named}'{did_you_mean(named, known)}",
            fix="one of: " + ", ".join(known) if known else "name another profile with --profile",
        )
    if len(known) != 1:
        raise ProfileError(
            f"{where} has {'several replicas' if known else 'no replica'} in Elasticsearch or OpenSearch",
            fix="name one with --replica" if known else "name a profile that has one with --profile",
        )
    return next(iter(known))


def panels_for(
    project: Project, tables: set[str], make: Callable[[Panel, PanelQuery], _Made]
) -> tuple[list[_Made], list[LeftOut]]:
    """Return what `make` makes of each panel over `tables`, and the panels of which it can make nothing."""
    plan = plan_pipeline(project.pipeline)
    made, left = [], []
    with closing(Session()) as session:
        for panel in plan.panels:
            try:
                query = read_panel(panel.query, plan, session)
                if query.table not in tables:
                    raise QueryError(f"it reads '{query.table}', which is not copied there")
                made.append(make(panel, query))
            except QueryError as error:
                left.append(LeftOut(panel.title, error.what))
    return made, left


def searched_panels(project: Project, replica: str) -> tuple[list[Shown], list[DataView], list[LeftOut]]:
    """Return the panels over a search replica, its data views, and what is left out."""
    from headrace.observe.export_kibana import DataView, Shown
    from headrace.observe.panel_search import panel_search

    indices = indices_of(project, replica)
    times: dict[str, str] = dict.fromkeys(indices, "")

    def make(panel: Panel, query: PanelQuery) -> Shown:
        shown = Shown(panel, indices[query.table], panel_search(query, panel.kind))
        times[query.table] = times[query.table] or query.time
        return shown

    made, left = panels_for(project, set(indices), make)
    return made, [DataView(index, times[table]) for table, index in indices.items()], left
