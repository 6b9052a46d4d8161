"""Saved objects for Kibana and OpenSearch Dashboards: data views, a chart for each panel, a dashboard.

The form is that of 7.10, which both of them read: Kibana 7.10 and later brings it up to date on import, and
OpenSearch Dashboards began with it. Format: the NDJSON of `POST /api/saved_objects/_import`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from headrace.declare import Panel
from headrace.observe.panel_search import Bucket, Measure, PanelSearch

__all__ = ["DataView", "Shown", "saved_objects", "saved_objects_text"]

_VERSIONS = {"index-pattern": "7.6.0", "visualization": "7.10.0", "dashboard": "7.9.3"}
_KINDS = {
    "table": "table",
    "line": "line",
    "area": "area",
    "bar": "histogram",
    "horizontal_bar": "horizontal_bar",
    "pie": "pie",
    "gauge": "metric",
    "number": "metric",
    "map": "table",
    "funnel": "horizontal_bar",
}
_COLUMNS, _WIDTH, _HEIGHT = 48, 24, 14
_INDEX_REFERENCE = "kibanaSavedObjectMeta.searchSourceJSON.index"


@dataclass(frozen=True)
class DataView:
    """An index; `time` is the field that a time range is of, "" when the range does not matter."""

    index: str
    time: str = ""


@dataclass(frozen=True)
class Shown:
    """A panel and what it asks of an index."""

    panel: Panel
    index: str
    search: PanelSearch


def saved_objects(pipeline: str, views: Sequence[DataView], panels: Sequence[Shown]) -> list[dict[str, Any]]:
    """Return the objects: what is referred to stands before what refers to it."""
    prefix = f"headrace-{_slug(pipeline)}"
    ids = {view.index: f"{prefix}-{_slug(view.index)}" for view in views}
    objects = [_object("index-pattern", ids[view.index], _view_attributes(view), []) for view in views]
    charts = []
    for number, shown in enumerate(panels, start=1):
        reference = {"name": _INDEX_REFERENCE, "type": "index-pattern", "id": ids[shown.index]}
        identity = f"{prefix}-panel-{number}-{_slug(shown.panel.title)}"
        charts.append(_object("visualization", identity, _chart_attributes(shown), [reference]))
    references = [
        {"name": f"panel_{number}", "type": "visualization", "id": chart["id"]}
        for number, chart in enumerate(charts)
    ]
    dashboard = _object("dashboard", prefix, _dashboard_attributes(pipeline, len(charts)), references)
    return [*objects, *charts, dashboard]


def saved_objects_text(objects: Sequence[Mapping[str, Any]]) -> str:
    """Return the file to import: one object in a line."""
    return "".join(json.dumps(each, ensure_ascii=False) + "\n" for each in objects)


def _object(
    kind: str, identity: str, attributes: Mapping[str, Any], references: list[dict[str, str]]
) -> dict[str, Any]:
    return {
        "id": identity,
        "type": kind,
        "attributes": dict(attributes),
        "references": references,
        "migrationVersion": {kind: _VERSIONS[kind]},
    }


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def _view_attributes(view: DataView) -> dict[str, Any]:
    return {"title": view.index, **({"timeFieldName": view.time} if view.time else {})}


def _search_source(**more: Any) -> dict[str, str]:
    source = {"query": {"query": "", "language": "lucene"}, "filter": [], **more}
    return {"searchSourceJSON": json.dumps(source)}


def _chart_attributes(shown: Shown) -> dict[str, Any]:
    kind = _KINDS[shown.panel.kind]
    state = {
        "title": shown.panel.title,
        "type": kind,
        "aggs": _aggregations(shown.search, kind),
        "params": _PARAMETERS.get(kind, _axes)(kind, shown),
    }
    query = {"query": shown.search.lucene, "language": "lucene"}
    return {
        "title": shown.panel.title,
        "visState": json.dumps(state, ensure_ascii=False),
        "uiStateJSON": "{}",
        "description": "",
        "version": 1,
        "kibanaSavedObjectMeta": _search_source(query=query, indexRefName=_INDEX_REFERENCE),
    }


def _aggregations(search: PanelSearch, kind: str) -> list[dict[str, Any]]:
    found = [_measure(number, each) for number, each in enumerate(search.measures, start=1)]
    for position, bucket in enumerate(search.buckets):
        # What stands along the axis is called a segment, what splits it into series a group.
        schema = "bucket" if kind == "table" else "segment" if position == 0 or kind == "pie" else "group"
        identity = str(len(search.measures) + position + 1)
        found.append(_bucket(identity, bucket, schema, missing=kind == "table" and position > 0))
    return found


def _measure(number: int, measure: Measure) -> dict[str, Any]:
    field = {"field": measure.field} if measure.field else {}
    parameters = {**field, "customLabel": measure.label}
    return {
        "id": str(number),
        "enabled": True,
        "type": measure.function,
        "schema": "metric",
        "params": parameters,
    }


def _bucket(identity: str, bucket: Bucket, schema: str, *, missing: bool) -> dict[str, Any]:
    parameters: dict[str, Any] = {"field": bucket.field, "customLabel": bucket.field}
    if bucket.size:
        parameters |= {
            "size": bucket.size,
            "orderBy": "_key" if bucket.order_by is None else str(bucket.order_by + 1),
            "order": "desc" if bucket.descending else "asc",
            "otherBucket": False,
            "otherBucketLabel": "Other",
            "missingBucket": missing,
            "missingBucketLabel": "-",
        }
    else:
        parameters |= {
            "interval": "auto",
            "useNormalizedEsInterval": True,
            "scaleMetricValues": False,
            "drop_partials": False,
            "min_doc_count": 1,
            "extended_bounds": {},
        }
    kind = "terms" if bucket.size else "date_histogram"
    return {"id": identity, "enabled": True, "type": kind, "schema": schema, "params": parameters}


def _legend() -> dict[str, Any]:
    return {"addTooltip": True, "addLegend": True, "legendPosition": "right"}


def _axes(kind: str, shown: Shown) -> dict[str, Any]:
    lying = kind == "horizontal_bar"
    drawn = "histogram" if lying else kind
    category = {
        "id": "CategoryAxis-1",
        "type": "category",
        "position": "left" if lying else "bottom",
        "show": True,
        "style": {},
        "scale": {"type": "linear"},
        "labels": {"show": True, "filter": True, "truncate": 100},
        "title": {},
    }
    value = {
        "id": "ValueAxis-1",
        "name": "BottomAxis-1" if lying else "LeftAxis-1",
        "type": "value",
        "position": "bottom" if lying else "left",
        "show": True,
        "style": {},
        "scale": {"type": "linear", "mode": "normal"},
        "labels": {"show": True, "rotate": 0, "filter": False, "truncate": 100},
        "title": {"text": shown.panel.unit},
    }
    series = [
        {
            "show": True,
            "type": drawn,
            "mode": "normal" if kind == "line" else "stacked",
            "data": {"id": str(number), "label": measure.label},
            "valueAxis": "ValueAxis-1",
            "drawLinesBetweenPoints": True,
            "lineWidth": 2,
            "interpolate": "linear",
            "showCircles": True,
        }
        for number, measure in enumerate(shown.search.measures, start=1)
    ]
    return {
        **_legend(),
        "type": drawn,
        "grid": {"categoryLines": False},
        "categoryAxes": [category],
        "valueAxes": [value],
        "seriesParams": series,
        "times": [],
        "addTimeMarker": False,
        "labels": {"show": lying},
        "thresholdLine": {"show": False, "value": 10, "width": 1, "style": "full", "color": "#E7664C"},
    }


def _pie(kind: str, shown: Shown) -> dict[str, Any]:
    labels = {"show": True, "values": True, "last_level": True, "truncate": 100}
    return {**_legend(), "type": "pie", "isDonut": True, "labels": labels}


def _table(kind: str, shown: Shown) -> dict[str, Any]:
    return {
        "perPage": shown.search.buckets[0].size if shown.search.buckets else 10,
        "showPartialRows": False,
        "showMetricsAtAllLevels": False,
        "showTotal": False,
        "totalFunc": "sum",
        "percentageCol": "",
    }


def _metric(kind: str, shown: Shown) -> dict[str, Any]:
    style = {"bgFill": "#000", "bgColor": False, "labelColor": False, "subText": "", "fontSize": 60}
    metric = {
        "percentageMode": False,
        "useRanges": False,
        "colorSchema": "Green to Red",
        "metricColorMode": "None",
        "colorsRange": [{"from": 0, "to": 10000}],
        "labels": {"show": True},
        "invertColors": False,
        "style": {**style, "subText": shown.panel.unit},
    }
    return {"addTooltip": True, "addLegend": False, "type": "metric", "metric": metric}


_PARAMETERS = {"pie": _pie, "table": _table, "metric": _metric}


def _dashboard_attributes(pipeline: str, charts: int) -> dict[str, Any]:
    panels = []
    for number in range(charts):
        row, column = divmod(number, _COLUMNS // _WIDTH)
        place = {"x": column * _WIDTH, "y": row * _HEIGHT, "w": _WIDTH, "h": _HEIGHT, "i": str(number)}
        panels.append(
            {
                "version": "7.10.0",
                "gridData": place,
                "panelIndex": str(number),
                "embeddableConfig": {},
                "panelRefName": f"panel_{number}",
            }
        )
    return {
        "title": f"Headrace: {pipeline}",
        "hits": 0,
        "description": "",
        "panelsJSON": json.dumps(panels),
        "optionsJSON": json.dumps({"useMargins": True, "hidePanelTitles": False}),
        "version": 1,
        "timeRestore": True,
        "timeFrom": "now-2h",
        "timeTo": "now",
        "refreshInterval": {"pause": False, "value": 10_000},
        "kibanaSavedObjectMeta": _search_source(),
    }
