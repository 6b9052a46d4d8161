"""A Grafana dashboard made of the table of metrics, and what provisions it; as documents of plain values.

What a dashboard looks like is Grafana's JSON model, as its foundation SDK describes it; a test reads every
panel with that SDK (docs/decisions/0014 says why it is not built with it).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from headrace.observe.grafana_sources import uid_of
from headrace.observe.metrics import METRICS, Kind, Metric

__all__ = [
    "INTERVAL",
    "PROMETHEUS_UID",
    "Chart",
    "charts",
    "dashboards_provider",
    "data_sources",
    "metrics_dashboard",
]

INTERVAL = "$__rate_interval"
"""Grafana puts the least interval here over which a rate makes sense."""

PROMETHEUS_UID = "prometheus"
"""How panels and alerts name the data source that is Prometheus."""

_SOURCE = {"type": "prometheus", "uid": PROMETHEUS_UID}
_UNITS = {"seconds": "s", "bytes": "bytes", "records": "short", "rows": "short"}
_COLUMNS, _WIDTH, _HEIGHT = 24, 8, 8
_INFO = frozenset({"headrace_build_info", "headrace_start_timestamp_seconds", "headrace_disk_bytes"})


@dataclass(frozen=True)
class Chart:
    """One panel: each query is PromQL and what its series are called in the legend."""

    title: str
    queries: tuple[tuple[str, str], ...]
    unit: str = "short"
    kind: str = "timeseries"
    help: str = ""


def _quantiles(name: str, by: str, legend: str) -> tuple[tuple[str, str], ...]:
    by_bucket = f"le, {by}" if by else "le"
    return tuple(
        (
            f"histogram_quantile({share}, sum by ({by_bucket}) (rate({name}_bucket[{INTERVAL}])))",
            f"p{share * 100:g} {legend}".strip(),
        )
        for share in (0.5, 0.95, 0.99)
    )


_FIRST: tuple[Chart, ...] = (
    Chart("Records per second", ((f"sum(rate(headrace_records_read_total[{INTERVAL}]))", "read"),)),
    Chart(
        "Success rate",
        (
            (
                f'sum(rate(headrace_records_total{{outcome=~"accepted|duplicate"}}[{INTERVAL}])) '
                f"/ sum(rate(headrace_records_total[{INTERVAL}]))",
                "accepted",
            ),
        ),
        unit="percentunit",
        kind="gauge",
    ),
    Chart(
        "Processing delay",
        (("max(headrace_processing_delay_seconds)", "delay"),),
        unit="s",
        kind="gauge",
    ),
    Chart(
        "Outcomes per second",
        ((f"sum by (outcome) (rate(headrace_records_total[{INTERVAL}]))", "{{outcome}}"),),
    ),
    Chart(
        "Latency from event to table",
        _quantiles("headrace_latency_seconds", "since", "since {{since}}"),
        unit="s",
    ),
    Chart("Batch size", _quantiles("headrace_epoch_records", "", "")),
    Chart("Lag", (("sum by (stream) (headrace_lag_records)", "{{stream}}"),)),
    Chart(
        "Epoch duration by stage",
        (
            (
                f"sum by (stage) (rate(headrace_epoch_seconds_sum[{INTERVAL}])) "
                f"/ sum by (stage) (rate(headrace_epoch_seconds_count[{INTERVAL}]))",
                "{{stage}}",
            ),
        ),
        unit="s",
    ),
    Chart("Alerts that fire", (("sum by (alert) (headrace_alert_firing) > 0", "{{alert}}"),), kind="stat"),
)


def charts() -> Iterator[Chart]:
    """Give what people look at first, then one chart for each metric."""
    yield from _FIRST
    for metric in METRICS:
        if metric.name not in _INFO:
            yield _of(metric)


def _of(metric: Metric) -> Chart:
    legend = " ".join(f"{{{{{label}}}}}" for label in metric.labels)
    by = ", ".join(metric.labels)
    unit = _UNITS.get(metric.unit, "short")
    title = metric.name.removeprefix("headrace_").removesuffix("_total").replace("_", " ")
    if metric.kind is Kind.HISTOGRAM:
        return Chart(title, _quantiles(metric.name, by, legend), unit=unit, help=metric.help)
    value = metric.name
    if metric.kind is Kind.COUNTER:
        value, title = f"rate({metric.name}[{INTERVAL}])", f"{title} per second"
    elif metric.name.endswith("_timestamp_seconds"):
        value = f"time() - {metric.name}"
        title = title.replace("timestamp seconds", "age")
    query = f"sum by ({by}) ({value})" if by else f"sum({value})"
    return Chart(title, ((query, legend or title),), unit=unit, help=metric.help)


def metrics_dashboard(pipeline: str) -> dict[str, Any]:
    """Return the dashboard of a pipeline's metrics."""
    return {
        "uid": _uid(f"headrace-{pipeline}"),
        "title": f"Headrace: {pipeline}",
        "tags": ["headrace"],
        "timezone": "browser",
        "schemaVersion": 41,
        "refresh": "10s",
        "editable": True,
        "time": {"from": "now-1h", "to": "now"},
        "panels": list(_panels(charts())),
    }


def _panels(found: Iterable[Chart]) -> Iterator[dict[str, Any]]:
    for number, chart in enumerate(found):
        row, column = divmod(number, _COLUMNS // _WIDTH)
        yield {
            "id": number + 1,
            "type": chart.kind,
            "title": chart.title,
            "description": chart.help,
            "datasource": _SOURCE,
            "gridPos": {"x": column * _WIDTH, "y": row * _HEIGHT, "w": _WIDTH, "h": _HEIGHT},
            "fieldConfig": {"defaults": {"unit": chart.unit, "min": 0}, "overrides": []},
            "options": {},
            "targets": [
                {"refId": chr(ord("A") + index), "datasource": _SOURCE, "expr": query, "legendFormat": legend}
                for index, (query, legend) in enumerate(chart.queries)
            ],
        }


def _uid(text: str) -> str:
    return uid_of("".join(sign if sign.isalnum() else "-" for sign in text.lower()))


def dashboards_provider() -> dict[str, Any]:
    """Return what tells Grafana where the dashboards are; the folder is mounted there."""
    provider = {
        "name": "headrace",
        "type": "file",
        "allowUiUpdates": True,
        "options": {"path": "/var/lib/grafana/dashboards"},
    }
    return {"apiVersion": 1, "providers": [provider]}


def data_sources(prometheus: str, others: Sequence[Mapping[str, Any]] = ()) -> dict[str, Any]:
    """Return the data sources: Prometheus, at the address by which Grafana reaches it, and `others`."""
    source = {
        "name": "Prometheus",
        "uid": PROMETHEUS_UID,
        "type": _SOURCE["type"],
        "access": "proxy",
        "url": prometheus,
        "isDefault": True,
    }
    return {"apiVersion": 1, "datasources": [source, *others]}
