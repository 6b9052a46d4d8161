"""Grafana dashboards of the pipeline's panels, over the tables of replicas, or over the run's own page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from headrace.declare import Panel
from headrace.observe.grafana_sources import uid_of
from headrace.observe.panel_search import PanelSearch
from headrace.sql.panel_query import PanelQuery
from headrace.sql.plan import NamedColumn
from headrace.sql.syntax import QueryError

__all__ = [
    "TablePanel",
    "cassandra_panel",
    "page_panel",
    "postgresql_panel",
    "search_panel",
    "tables_dashboard",
]

_COLUMNS, _WIDTH, _HEIGHT = 24, 12, 8
_UNITS = {
    "s": "s",
    "ms": "ms",
    "%": "percent",
    "bytes": "bytes",
    "€": "currencyEUR",
    "records/s": "recordsps",
}
_REDUCED = {"calcs": ["lastNotNull"], "fields": "", "values": False}
_EACH_ROW = {**_REDUCED, "values": True}
_ALL_TIME = "10y"
_OVER_TIME = frozenset({"line", "area", "bar"})
_NUMBERS = frozenset(
    (
        "TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT", "UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT",
        "UHUGEINT", "BIGNUM", "FLOAT", "DOUBLE",
    )
)  # fmt: skip


@dataclass(frozen=True)
class TablePanel:
    """One panel: whom it asks (`source` is a data source's type and uid) and what.

    by_time         its rows are places in time
    ranged          the dashboard's time range chooses among its rows
    transformations what Grafana does with the answer, because the source cannot
    """

    panel: Panel
    source: dict[str, str]
    target: dict[str, Any]
    by_time: bool
    ranged: bool = True
    transformations: tuple[dict[str, Any], ...] = field(default=())


def postgresql_panel(panel: Panel, sql: str, source: dict[str, str], *, by_time: bool) -> TablePanel:
    """Return a panel that asks PostgreSQL; with `by_time` the first column of `sql` is called "time"."""
    target = {
        "rawSql": sql,
        "rawQuery": True,
        "editorMode": "code",
        "format": "time_series" if by_time else "table",
    }
    return TablePanel(panel, source, target, by_time)


def search_panel(
    panel: Panel, search: PanelSearch, source: dict[str, str], *, time: str, ranged: bool
) -> TablePanel:
    """Return a panel that asks Elasticsearch or OpenSearch; `time` is the time field of the data source."""
    measures = [
        {
            "id": str(number),
            "type": each.function,
            **({"field": each.field} if each.field else {}),
        }
        for number, each in enumerate(search.measures, start=1)
    ]
    buckets: list[dict[str, Any]] = []
    for number, each in enumerate(search.buckets, start=len(measures) + 1):
        settings: dict[str, Any] = {"interval": "auto", "min_doc_count": "1"}
        if each.size:
            settings = {
                "size": str(each.size),
                "min_doc_count": "1",
                "orderBy": "_key" if each.order_by is None else str(each.order_by + 1),
                "order": "desc" if each.descending else "asc",
            }
            if panel.kind == "table" and buckets:
                settings["missing"] = "-"
        kind = "terms" if each.size else "date_histogram"
        buckets.append({"id": str(number), "type": kind, "field": each.field, "settings": settings})
    # Grafana draws lines from the last bucket on: a series is a value of the ones before it.
    buckets.sort(key=lambda each: bool(each["type"] == "date_histogram"))
    by_time = bool(buckets) and buckets[-1]["type"] == "date_histogram"
    target = {"query": search.lucene, "timeField": time, "metrics": measures, "bucketAggs": buckets}
    return TablePanel(panel, source, target, by_time, ranged)


def cassandra_panel(panel: Panel, query: PanelQuery, source: dict[str, str], *, keyspace: str) -> TablePanel:
    """Return a panel that asks Cassandra. Raises QueryError for what it cannot be asked."""
    if query.grouped or query.filters or query.time:
        raise QueryError("Cassandra chooses rows by their key alone, and puts none together")
    columns = ", ".join(
        _name(one.column) + (f" AS {_name(one.name)}" if one.name != one.column else "")
        for one in query.outputs
    )
    target = {
        "rawQuery": True,
        "queryType": "query",
        "target": f"SELECT {columns} FROM {_name(keyspace)}.{_name(query.table)}",
    }
    changes: list[dict[str, Any]] = [
        {
            "id": "convertFieldType",
            "options": {
                "conversions": [{"targetField": one.name, "destinationType": "time", "dateFormat": "YYYY-MM"}]
            },
        }
        for one in query.outputs
        if one.month
    ]
    if query.order:
        # Grafana sorts by one field; what settles ties is left to it.
        ordered, descending = query.order[0]
        sort = {"field": ordered.name, "desc": descending}
        changes.append({"id": "sortBy", "options": {"fields": {}, "sort": [sort]}})
    if query.limit is not None:
        changes.append({"id": "limit", "options": {"limitField": query.limit}})
    by_time = query.outputs[0].is_time
    return TablePanel(panel, source, target, by_time, ranged=False, transformations=tuple(changes))


def page_panel(
    panel: Panel, number: int, columns: Sequence[NamedColumn], source: dict[str, str]
) -> TablePanel:
    """Return a panel that asks the run's page for its panel `number`, whose query gives `columns`.

    The page answers rows as lists, so a column is chosen by its place.
    """
    kinds = [_kind_of(column.type) for column in columns]
    by_time = panel.kind in _OVER_TIME and kinds[0] == "timestamp"
    target = {
        "type": "json",
        "source": "url",
        "parser": "backend",
        "format": "timeseries" if by_time else "table",
        "url": f"/api/panels/{number}/rows",
        "url_options": {"method": "GET"},
        "root_selector": "rows",
        "columns": [
            {"selector": str(place), "text": column.name, "type": kind}
            for place, (column, kind) in enumerate(zip(columns, kinds, strict=True))
        ],
    }
    return TablePanel(panel, source, target, by_time)


def _kind_of(type_name: str) -> str:
    """Return the Infinity data source's word for one of DuckDB's types."""
    if type_name.startswith(("TIMESTAMP", "DATE")):
        found = "timestamp"
    elif type_name.startswith("DECIMAL") or type_name in _NUMBERS:
        found = "number"
    else:
        found = "boolean" if type_name == "BOOLEAN" else "string"
    return "string" if type_name.endswith("]") else found


def _name(text: str) -> str:
    return '"' + text.replace('"', '""') + '"'


def tables_dashboard(pipeline: str, replica: str, panels: Sequence[TablePanel]) -> dict[str, Any]:
    """Return the dashboard of a replica's panels, or of another place that has them."""
    name = "".join(sign if sign.isalnum() else "-" for sign in f"headrace-{pipeline}-{replica}".lower())
    return {
        "uid": uid_of(name),
        "title": f"{pipeline}: {replica}",
        "tags": ["headrace"],
        "timezone": "browser",
        "schemaVersion": 41,
        "refresh": "10s",
        "editable": True,
        "time": {"from": "now-2h", "to": "now"},
        "panels": [_drawn(number, each) for number, each in enumerate(panels)],
    }


def _drawn(number: int, shown: TablePanel) -> dict[str, Any]:
    row, column = divmod(number, _COLUMNS // _WIDTH)
    kind, options, custom = _look(shown)
    unit = shown.panel.unit
    defaults: dict[str, Any] = {"unit": _UNITS.get(unit, f"suffix: {unit}") if unit else "short"}
    drawn: dict[str, Any] = {
        "id": number + 1,
        "type": kind,
        "title": shown.panel.title,
        "datasource": shown.source,
        "gridPos": {"x": column * _WIDTH, "y": row * _HEIGHT, "w": _WIDTH, "h": _HEIGHT},
        "fieldConfig": {"defaults": {**defaults, "custom": custom} if custom else defaults, "overrides": []},
        "options": options,
        "targets": [{"refId": "A", "datasource": shown.source, **shown.target}],
        "transformations": list(shown.transformations),
    }
    if not shown.ranged:
        drawn |= {"timeFrom": _ALL_TIME, "hideTimeOverride": True}
    return drawn


def _look(shown: TablePanel) -> tuple[str, dict[str, Any], dict[str, Any]]:
    """Return Grafana's kind of panel, its options and how its fields are drawn."""
    stacked = {"stacking": {"mode": "normal", "group": "A"}}
    match shown.panel.kind:
        case "line":
            return "timeseries", {}, {"drawStyle": "line"}
        case "area":
            return "timeseries", {}, {"drawStyle": "line", "fillOpacity": 30, **stacked}
        case "bar" if shown.by_time:
            return "timeseries", {}, {"drawStyle": "bars", "fillOpacity": 80, **stacked}
        case "bar":
            return "barchart", {"orientation": "auto"}, {}
        case "horizontal_bar" | "funnel":
            return "barchart", {"orientation": "horizontal"}, {}
        case "pie":
            return "piechart", {"reduceOptions": _EACH_ROW, "pieType": "donut"}, {}
        case "gauge":
            return "gauge", {"reduceOptions": _REDUCED}, {}
        case "number":
            return "stat", {"reduceOptions": _REDUCED}, {}
        case _:
            return "table", {"showHeader": True}, {}
