"""What Prometheus and Alertmanager need of a pipeline, as documents of plain values.

Formats: prometheus.io/docs/prometheus/latest/configuration (configuration, recording_rules,
unit_testing_rules) and prometheus.io/docs/alerting/latest/configuration.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from headrace.observe.rules import Rule

__all__ = [
    "RULES_FILE",
    "Target",
    "annotations_of",
    "labels_of",
    "prometheus_document",
    "promql_of",
    "rule_tests_document",
    "rules_document",
]

RULES_FILE = "headrace.rules.yml"
_INTERVAL_S = 15


@dataclass(frozen=True)
class Target:
    """What is scraped: `address` is host:port."""

    job: str
    address: str
    path: str = "/metrics"


def prometheus_document(targets: Sequence[Target], *, alertmanager: str | None = None) -> dict[str, Any]:
    """Return prometheus.yml; `alertmanager` is host:port."""
    document: dict[str, Any] = {
        "global": {"scrape_interval": f"{_INTERVAL_S}s", "evaluation_interval": f"{_INTERVAL_S}s"},
        "rule_files": [RULES_FILE],
        "scrape_configs": [
            {
                "job_name": target.job,
                "metrics_path": target.path,
                "static_configs": [{"targets": [target.address]}],
            }
            for target in targets
        ],
    }
    if alertmanager is not None:
        document["alerting"] = {"alertmanagers": [{"static_configs": [{"targets": [alertmanager]}]}]}
    return document


def promql_of(rule: Rule) -> str:
    """Return the rule's PromQL; Headrace looks at the pipeline's alerts itself, and publishes states."""
    return rule.promql or f'headrace_alert_firing{{alert="{rule.name}"}} == 1'


def _lasts(length: timedelta) -> str:
    return f"{round(length.total_seconds())}s"


def rules_document(rules: Iterable[Rule], pipeline: str) -> dict[str, Any]:
    """Return the alert rules. One of the pipeline has had its `hold` already when its metric is 1."""
    written = []
    for rule in rules:
        facts: dict[str, Any] = {"alert": rule.name, "expr": promql_of(rule)}
        if rule.hold and rule.promql:
            facts["for"] = _lasts(rule.hold)
        facts["labels"] = labels_of(rule, pipeline)
        facts["annotations"] = annotations_of(rule)
        written.append(facts)
    return {"groups": [{"name": "headrace", "rules": written}]}


def labels_of(rule: Rule, pipeline: str) -> dict[str, str]:
    """Return what a firing alert is told apart by."""
    return {"severity": rule.severity, "pipeline": pipeline}


def annotations_of(rule: Rule) -> dict[str, str]:
    """Return what a firing alert says."""
    # Two braces begin a template in Prometheus; a summary is the author's text and none.
    texts = {"summary": rule.summary, "description": rule.help}
    return {name: text.replace("{{", "{ {") for name, text in texts.items() if text}


_FIRING: Mapping[str, tuple[Mapping[str, str], Mapping[str, str]]] = {
    "not_committing": (
        {'headrace_lag_records{stream="events"}': "100x60", "headrace_epochs_total": "7x60"},
        {},
    ),
    "restarting": ({"headrace_restarts_total": "0x20 1x5 2x40"}, {}),
    "down": ({'up{job="headrace"}': "1x5 0x60"}, {"job": "headrace"}),
    "lag_rising": ({'headrace_lag_records{stream="events"}': "9000+1000x60"}, {"stream": "events"}),
    "delay": ({'headrace_processing_delay_seconds{stream="events"}': "0x5 90000x60"}, {"stream": "events"}),
    "bad_share": (
        {
            'headrace_records_read_total{stream="events"}': "0+100x60",
            'headrace_records_total{stream="events",lane="main",outcome="malformed"}': "0+90x60",
        },
        {"stream": "events"},
    ),
    "late_share": (
        {
            'headrace_records_read_total{stream="events"}': "0+100x60",
            'headrace_records_total{stream="events",lane="main",outcome="late"}': "0+90x60",
        },
        {"stream": "events"},
    ),
    "replica_behind": (
        {'headrace_replica_lag_seconds{replica="copy"}': "0x5 9000000x60"},
        {"replica": "copy"},
    ),
    "replica_refused": (
        {'headrace_replica_state{replica="copy",state="refused"}': "0x5 1x60"},
        {"replica": "copy", "state": "refused"},
    ),
    "log_down": ({'headrace_log_up{stream="events"}': "1x5 0x60"}, {"stream": "events"}),
    "disk_full": ({"headrace_disk_free_bytes": "100000000000-1000000000x60"}, {}),
    "clock_skew": ({'headrace_clock_skew_seconds{stream="events"}': "0x5 90000x60"}, {"stream": "events"}),
}
"""For each default rule, series (a point every 15 seconds) with which it fires, and its labels then."""

_EVALUATED = "14m"
_CALM = (
    'headrace_lag_records{stream="events"}', "headrace_epochs_total", 'up{job="headrace"}',
    'headrace_log_up{stream="events"}', 'headrace_records_read_total{stream="events"}',
)  # fmt: skip


def rule_tests_document(rules: Sequence[Rule], pipeline: str) -> dict[str, Any]:
    """Return the tests of the rules for `promtool test rules`: each fires, and none does when all is well."""
    tests = []
    for rule in rules:
        series, labels = _FIRING.get(rule.name, ({}, {})) if rule.origin == "default" else ({}, {})
        if not series:
            name = {"alert": rule.name, "severity": rule.severity}
            series = {f'headrace_alert_firing{{alert="{rule.name}",severity="{rule.severity}"}}': "0x5 1x60"}
            labels = name
        expected = {
            "exp_labels": {**labels, **labels_of(rule, pipeline)},
            "exp_annotations": annotations_of(rule),
        }
        tests.append(_test(series, rule.name, [expected]))
    calm = {
        series: "0x60" if "lag" in series else "1x60" if "up" in series else "0+100x60" for series in _CALM
    }
    tests += [_test(calm, rule.name, []) for rule in rules]
    return {"rule_files": [RULES_FILE], "evaluation_interval": f"{_INTERVAL_S}s", "tests": tests}


def _test(series: Mapping[str, str], name: str, expected: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "interval": f"{_INTERVAL_S}s",
        "input_series": [{"series": each, "values": values} for each, values in series.items()],
        "alert_rule_test": [{"eval_time": _EVALUATED, "alertname": name, "exp_alerts": expected}],
    }
