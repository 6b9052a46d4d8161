"""The pipeline's panels for the tools that watch its replicas: what can be shown there, and what cannot."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator
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
from headrace.sql.system import system_relations

if TYPE_CHECKING:
    from headrace.observe.export_kibana import DataView, Shown
    from headrace.observe.grafana_tables import TablePanel
    from headrace.replicate.elasticsearch import ElasticsearchReplica
    from headrace.replicate.protocol import TableShape

__all__ = [
    "SHOWN_KINDS",
    "LeftOut",
    "grafana_panels",
    "page_address",
    "page_dashboard",
    "page_panels",
    "replicas_of",
    "search_replica",
    "searched_panels",
]

SEARCH_KINDS = ("elasticsearch", "opensearch")
SHOWN_KINDS = ("postgresql", *SEARCH_KINDS, "cassandra")
"""The replicas that Grafana can read."""

_ANYWHERE = frozenset({"0.0.0.0", "::"})  # noqa: S104 - compared with, not bound to

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


def grafana_panels(
    project: Project, replica: str
) -> tuple[list[TablePanel], list[dict[str, Any]], list[LeftOut]]:
    """Return Grafana's panels over a replica, the data sources that they ask, and what is left out."""
    options = project.profile.replicas[replica]
    alone = len(replicas_of(project, (options.kind,))) == 1
    uid = options.kind if alone else f"{options.kind}-{replica}"
    if options.kind == "postgresql":
        return _postgresql_panels(project, replica, uid)
    if options.kind == "cassandra":
        return _cassandra_panels(project, replica, uid)
    return _search_panels(project, replica, uid)


def page_address(project: Project) -> str | None:
    """Return where the profile serves the page, for a program on the same machine; None: nowhere fixed."""
    page = project.profile.page
    if page.serve == "off" or page.port == 0:
        return None
    host = "localhost" if page.host in _ANYWHERE else page.host
    name = f"[{host}]" if ":" in host else host
    return f"{'http' if page.certificate is None else 'https'}://{name}:{page.port}"


def page_dashboard(
    project: Project, address: str, *, shown: Container[str], beside: Container[str]
) -> tuple[str, dict[str, Any], dict[str, Any]] | None:
    """Return the name of a dashboard over the page, itself and its source, of the panels not `shown`, if any.

    Its name is none of those `beside`: a replica may be called as the page is.
    """
    from headrace.observe.grafana_tables import tables_dashboard

    if all(each.title in shown for each in project.pipeline.panels):
        return None
    panels, source = page_panels(project, address.rstrip("/"), shown)
    name, asked_of = project.pipeline.name, "page"
    while f"{name}-{asked_of}" in beside:
        asked_of = f"run-{asked_of}"
    return f"{name}-{asked_of}", tables_dashboard(name, asked_of, panels), source


def page_panels(
    project: Project, address: str, shown: Container[str]
) -> tuple[list[TablePanel], dict[str, Any]]:
    """Return Grafana's panels over the page at `address`, without those `shown` elsewhere, and the source."""
    from headrace.observe.grafana_sources import page_source, reference_to
    from headrace.observe.grafana_tables import page_panel

    plan = plan_pipeline(project.pipeline)
    source = page_source(project.pipeline.name, address, token=project.profile.page.token is not None)
    with closing(Session()) as session:
        for function in project.pipeline.functions:
            session.function(function)
        for relation, columns in system_relations(plan.streams.values()).items():
            session.relation(relation, columns)
        for table in plan.tables:
            session.relation(table.name, table.columns)
        panels = [
            page_panel(panel, number, session.describe(panel.query), reference_to(source))
            for number, panel in enumerate(plan.panels)
            if panel.title not in shown
        ]
    return panels, source


def _postgresql_panels(
    project: Project, replica: str, uid: str
) -> tuple[list[TablePanel], list[dict[str, Any]], list[LeftOut]]:
    from headrace.observe.grafana_sources import postgresql_source, reference_to
    from headrace.observe.grafana_tables import postgresql_panel
    from headrace.replicate.postgresql.schema import relation
    from headrace.sql.panel_postgresql import panel_in_postgresql

    options = project.profile.replicas[replica]
    source = postgresql_source(f"PostgreSQL {replica}", uid, options)
    shapes = copied_by(project, replica)
    there = {shape.name.lower(): relation(options.schema, shape.name) for shape in shapes}
    instants = {name for shape in shapes for name in time_fields(shape)}
    made, left = [], []
    with closing(Session()) as session:
        for panel in project.pipeline.panels:
            shown_by_time = instants if panel.kind in ("line", "area", "bar") else ()
            try:
                sql, by_time = panel_in_postgresql(
                    panel.query, there, session, instants=shown_by_time, time_filter="$__timeFilter({})"
                )
            except QueryError as error:
                left.append(LeftOut(panel.title, error.what))
            else:
                made.append(postgresql_panel(panel, sql, reference_to(source), by_time=by_time))
    return made, [source], left


def _cassandra_panels(
    project: Project, replica: str, uid: str
) -> tuple[list[TablePanel], list[dict[str, Any]], list[LeftOut]]:
    from headrace.observe.grafana_sources import cassandra_source, reference_to
    from headrace.observe.grafana_tables import cassandra_panel

    options = project.profile.replicas[replica]
    source = cassandra_source(f"Cassandra {replica}", uid, options)
    tables = {shape.name for shape in copied_by(project, replica)}

    def make(panel: Panel, query: PanelQuery) -> TablePanel:
        return cassandra_panel(panel, query, reference_to(source), keyspace=options.keyspace)

    made, left = panels_for(project, tables, make)
    return made, [source], left


def _search_panels(
    project: Project, replica: str, uid: str
) -> tuple[list[TablePanel], list[dict[str, Any]], list[LeftOut]]:
    from headrace.observe.grafana_sources import reference_to, search_source, uid_of
    from headrace.observe.grafana_tables import search_panel
    from headrace.observe.panel_search import panel_search

    options = project.profile.replicas[replica]
    indices = indices_of(project, replica)
    shapes = {shape.name: shape for shape in copied_by(project, replica)}
    sources: dict[str, dict[str, Any]] = {}

    def make(panel: Panel, query: PanelQuery) -> TablePanel:
        index, times = indices[query.table], list(time_fields(shapes[query.table]))
        if not query.time and not times:
            raise QueryError("Grafana asks for a range of time, and its table has no instant")
        time = query.time or times[-1]
        search = panel_search(query, panel.kind)
        identity = uid_of(f"{uid}-{index}-{time}")
        source = sources.setdefault(
            identity, search_source(f"{index} by {time}", identity, options, options.kind, index, time)
        )
        return search_panel(panel, search, reference_to(source), time=time, ranged=bool(query.time))

    made, left = panels_for(project, set(indices), make)
    return made, list(sources.values()), left


def time_fields(shape: TableShape) -> Iterator[str]:
    """Give the columns of a table that are instants, in their order."""
    return (column.name for column in shape.columns if column.type.startswith("TIMESTAMP"))
