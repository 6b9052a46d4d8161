"""What Grafana is given by `headrace export compose`: panels, whom it asks for them, and what that needs."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml

from headrace.blueprints import write_project
from headrace.cli.app import run
from headrace.operate.export_services import PLUGINS
from headrace.operate.project import load_project
from headrace.web.exposure import leads_here

pytestmark = pytest.mark.slow

ASKS_PAGES = "yesoreyeram-infinity-datasource"
UNNAMED = 'plain_http = "anywhere" }'
PANELS = 'panels_token = "${env:HEADRACE_PANELS_TOKEN}", '
NAMED = 'plain_http = "anywhere", ' + PANELS + 'names = ["headrace"] }'


def name_container(folder: Path) -> Path:
    """Let the container's name in at the page of a blueprint's project; returns the file of its profiles."""
    profiles = folder / "headrace.toml"
    before = profiles.read_text()
    assert before.count(UNNAMED) == 1
    profiles.write_text(before.replace(UNNAMED, NAMED))
    return profiles


def exported(folder: Path) -> tuple[dict[str, str], dict[str, Any], dict[str, Any]]:
    """Grafana's environment, its dashboards by their files, its data sources by their uids."""
    assert run(["export", "compose", "--project", str(folder), "--profile", "compose"]) == 0
    deploy = folder / "deploy"
    services = yaml.safe_load((deploy / "compose.yaml").read_text())["services"]
    found = (deploy / "grafana" / "dashboards").glob("*.json")
    provided = yaml.safe_load((deploy / "grafana/provisioning/datasources/headrace.yaml").read_text())
    sources = {each["uid"]: each for each in provided["datasources"]}
    dashboards = {path.stem: json.loads(path.read_text()) for path in found}
    return services["grafana"]["environment"], dashboards, sources


@pytest.mark.parametrize("blueprint", ["commerce", "customers", "operations", "signups"])
def test_every_panel_of_a_blueprint_is_in_grafana_where_the_page_lets_it_in(
    blueprint: str, tmp_path: Path
) -> None:
    write_project(blueprint, tmp_path)
    name_container(tmp_path)
    grafana, dashboards, sources = exported(tmp_path)
    loaded = load_project(tmp_path, profile="compose")
    panels = [panel for name, each in dashboards.items() if name != blueprint for panel in each["panels"]]
    titles = [panel["title"] for panel in panels]
    assert sorted(titles) == sorted(panel.title for panel in loaded.pipeline.panels)
    asked = [sources[panel["datasource"]["uid"]] for panel in panels]
    of_page = [source for source in asked if source["type"] == ASKS_PAGES]
    for source in of_page:
        assert urlsplit(source["url"]).port == loaded.profile.page.port
        assert leads_here(urlsplit(source["url"]).netloc, set(loaded.profile.page.names))
        assert source["secureJsonData"] == {"bearerToken": "$HEADRACE_PANELS_TOKEN"}
    assert bool(of_page) == (blueprint != "signups"), "whose panels are all over its tables in Cassandra"
    needed = {source["type"] for source in asked}
    assert set(grafana["GF_PLUGINS_PREINSTALL"].split(",")) == {f"{each}@{PLUGINS[each]}" for each in needed}
    token = "${HEADRACE_PANELS_TOKEN:?set HEADRACE_PANELS_TOKEN in .env}"
    assert grafana.get("HEADRACE_PANELS_TOKEN") == (token if of_page else None)
    assert "HEADRACE_TOKEN" not in grafana, "which may do everything"
    made = re.findall(r"^HEADRACE_(?:PANELS_)?TOKEN=(.{16,})$", (tmp_path / "deploy/.env").read_text(), re.M)
    assert len(set(made)) == 2


def test_a_page_that_does_not_know_the_name_of_its_container_is_in_no_dashboard(tmp_path: Path) -> None:
    write_project("operations", tmp_path)
    grafana, dashboards, sources = exported(tmp_path)
    assert set(dashboards) == {"operations"} and set(sources) == {"prometheus", "postgresql"}
    assert "GF_PLUGINS_PREINSTALL" not in grafana and "HEADRACE_TOKEN" not in grafana


@pytest.mark.parametrize("other", ["", 'panels_token = "${env:PANELS}", '], ids=["none", "another"])
def test_a_page_that_has_no_token_for_grafana_is_in_no_dashboard(other: str, tmp_path: Path) -> None:
    write_project("operations", tmp_path)
    profiles = name_container(tmp_path)
    ingest = 'ingest = { token = "${env:HEADRACE_PANELS_TOKEN}" }\n'
    text = profiles.read_text()
    assert text.count(PANELS) == 1 and text.count("\npage = {") == 1
    profiles.write_text(text.replace(PANELS, other).replace("\npage = {", f"\n{ingest}page = {{"))
    grafana, dashboards, sources = exported(tmp_path)
    assert set(dashboards) == {"operations"} and set(sources) == {"prometheus", "postgresql"}
    assert not [name for name in grafana if name.startswith("HEADRACE")]
