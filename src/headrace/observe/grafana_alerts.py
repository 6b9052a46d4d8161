"""Grafana's alert rules, as a file for its provisioning: the same rules as for Prometheus.

Format: grafana.com/docs/grafana/latest/alerting/set-up/provision-alerting-resources/file-provisioning.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from headrace.observe.export_prometheus import annotations_of, labels_of, promql_of
from headrace.observe.grafana_sources import uid_of
from headrace.observe.rules import Rule

__all__ = ["alert_groups"]

_INTERVAL_S = 15
_LOOKED_BACK_S = 1_800


def alert_groups(rules: Iterable[Rule], pipeline: str, source: str) -> dict[str, Any]:
    """Return the rules; `source` is the uid of the data source that asks Prometheus."""
    group = {
        "orgId": 1,
        "name": pipeline,
        "folder": "Headrace",
        "interval": f"{_INTERVAL_S}s",
        "rules": [_rule(rule, pipeline, source) for rule in rules],
    }
    return {"apiVersion": 1, "groups": [group]}


def _rule(rule: Rule, pipeline: str, source: str) -> dict[str, Any]:
    # A rule of Prometheus fires for each series that there is, whatever its value: here each is made a 1.
    asked = {"refId": "A", "expr": f"({promql_of(rule)}) * 0 + 1", "instant": True, "range": False}
    over = {"evaluator": {"type": "gt", "params": [0]}}
    judged = {"refId": "B", "type": "threshold", "expression": "A", "conditions": [over]}
    hold = round(rule.hold.total_seconds()) if rule.promql else 0
    return {
        "uid": uid_of(re.sub(r"[^a-z0-9-]+", "-", f"headrace-{pipeline}-{rule.name}".lower())),
        "title": f"{pipeline}: {rule.name}",
        "condition": "B",
        "data": [
            _query("A", source, asked, looked_back_s=_LOOKED_BACK_S),
            _query("B", "__expr__", judged, looked_back_s=0),
        ],
        "for": f"{hold}s",
        # No series is what these queries give when all is well.
        "noDataState": "OK",
        "execErrState": "Error",
        "labels": labels_of(rule, pipeline),
        "annotations": annotations_of(rule),
    }


def _query(name: str, source: str, model: dict[str, Any], *, looked_back_s: int) -> dict[str, Any]:
    return {
        "refId": name,
        "datasourceUid": source,
        "relativeTimeRange": {"from": looked_back_s, "to": 0},
        "model": model,
    }
