"""Dashboards and alert rules lie in each blueprint's folder as the exports make them today."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from shipped_monitoring import PROFILE, VARIABLES, exported

from headrace.blueprints import BLUEPRINTS, project_files, write_project
from headrace.operate import load_project
from headrace.operate.alerting import rules_of
from servers.prometheus import promtool


@pytest.mark.parametrize("blueprint", BLUEPRINTS)
def test_a_blueprint_ships_the_dashboards_and_rules_that_are_exported(
    blueprint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in VARIABLES.items():
        monkeypatch.setenv(name, value)
    made = exported(blueprint, tmp_path / "project")
    files = project_files(blueprint)
    shipped = {path: content for path, content in files.items() if path.startswith("monitoring/")}
    assert sorted(shipped) == sorted(made)
    changed = [path for path, content in made.items() if shipped[path] != content]
    assert changed == [], "write them anew: python tests/blueprints/shipped_monitoring.py"


@pytest.mark.parametrize("blueprint", BLUEPRINTS)
def test_the_rules_of_a_new_project_pass_their_tests(
    blueprint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, prometheus_here: None
) -> None:
    for name, value in VARIABLES.items():
        monkeypatch.setenv(name, value)
    write_project(blueprint, tmp_path)
    rules = rules_of(load_project(tmp_path, profile=PROFILE))
    folder = tmp_path / "monitoring" / "prometheus"
    assert f"{len(rules)} rules found" in promtool("check", "rules", "headrace.rules.yml", folder=folder)
    assert "SUCCESS" in promtool("test", "rules", "headrace.rules.test.yml", folder=folder)


def titles(dashboard: Any) -> set[str]:
    return {panel["title"] for panel in dashboard["panels"] if panel["type"] != "row"}


@pytest.mark.parametrize("blueprint", BLUEPRINTS)
def test_every_panel_and_alert_of_the_pipeline_is_in_a_new_project(blueprint: str, tmp_path: Path) -> None:
    write_project(blueprint, tmp_path)
    pipeline = load_project(tmp_path).pipeline
    grafana = tmp_path / "monitoring" / "grafana"
    shown = [titles(json.loads(path.read_text())) for path in (grafana / "dashboards").glob("*.json")]
    assert {panel.title for panel in pipeline.panels} <= set().union(*shown)
    alerting = yaml.safe_load((grafana / "provisioning" / "alerting" / "headrace.yaml").read_text())
    grafanas = {rule["title"] for group in alerting["groups"] for rule in group["rules"]}
    rules = yaml.safe_load((tmp_path / "monitoring" / "prometheus" / "headrace.rules.yml").read_text())
    alerts = {rule["alert"] for group in rules["groups"] for rule in group["rules"] if "alert" in rule}
    own = {alert.name for alert in pipeline.alerts}
    assert own
    assert own <= alerts
    assert {f"{blueprint}: {name}" for name in own} <= grafanas
