"""The pipeline's panels in Grafana, asked of a run's page: it answers what each is told to take."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import Dashboard
from page_support import RunningPage, eventually, running_page

from headrace.operate import load_project
from headrace.operate.export_monitoring import write_grafana
from headrace.operate.page_options import PageOptions
from headrace.operate.secrets import Secret

TOKEN = "a-token-of-the-page-of-visitors"
PANELS_TOKEN = "a-token-of-the-page-of-grafana"
OF_ALL_KINDS = """
pipeline.panel(
    "Types", "SELECT 1 AS n, true AS yes, DATE '2026-01-02' AS day, [1.5] AS list, 'a' AS text", kind="table"
)
"""


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningPage]:
    folder = tmp_path_factory.mktemp("grafana") / "commerce"
    tokens = {"token": Secret(TOKEN), "panels_token": Secret(PANELS_TOKEN)}
    with running_page(folder, events_hours=1.5, **tokens) as made:
        # Panels look back from now, and what is oldest is read first.
        there = sum(each.end for each in made.runtime.logs["events"].partitions())
        eventually(lambda: made.read() >= there, within_s=240)
        yield made


def exported(page: RunningPage, folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """The dashboard over the page and its data source."""
    written, left = write_grafana(page.project, folder, prometheus="http://p:9090", page=page.address + "/")
    assert left == []
    text = "".join(each.read_text() for each in written)
    assert TOKEN not in text and PANELS_TOKEN not in text
    (path,) = [each for each in written if each.name == "commerce-page.json"]
    (provided,) = [each for each in written if each.parent.name == "datasources"]
    sources = {one["uid"]: one for one in yaml.safe_load(provided.read_text())["datasources"]}
    dashboard = json.loads(path.read_text())
    (uid,) = {panel["datasource"]["uid"] for panel in dashboard["panels"]}
    return dashboard, sources[uid]


def taken(target: dict[str, Any], answer: Any) -> list[dict[str, Any]]:
    """What Grafana's Infinity data source makes of an answer: columns by their place in each row."""
    rows = []
    for row in answer[target["root_selector"]]:
        found = {}
        for column in target["columns"]:
            value = row[int(column["selector"])]
            if value is not None and column["type"] == "timestamp":
                value = datetime.fromisoformat(value)
            elif value is not None and column["type"] == "number":
                value = float(value)
            elif value is not None and column["type"] == "boolean":
                assert isinstance(value, bool)
            found[column["text"]] = value
        assert len(found) == len(row)
        rows.append(found)
    return rows


@pytest.mark.slow
def test_grafana_gets_rows_for_every_panel_that_no_replica_shows(page: RunningPage, tmp_path: Path) -> None:
    dashboard, source = exported(page, tmp_path)
    declared = page.project.pipeline.panels
    assert [panel["title"] for panel in dashboard["panels"]] == [panel.title for panel in declared]
    read = json.loads(json.dumps(Dashboard.from_json(dashboard), cls=JSONEncoder))
    assert [panel["targets"] for panel in read["panels"]] == [
        panel["targets"] for panel in dashboard["panels"]
    ]
    assert source["jsonData"]["auth_method"] == "bearerToken"
    assert source["url"] == page.address and source["jsonData"]["allowedHosts"] == [page.address]
    assert source["secureJsonData"] == {"bearerToken": "$HEADRACE_PANELS_TOKEN"}
    shown = {"Authorization": f"Bearer {PANELS_TOKEN}"}
    for panel in dashboard["panels"]:
        (target,) = panel["targets"]
        assert page.ask("GET", target["url"])[0] == 401
        status, answer, _ = page.ask("GET", target["url"], headers=shown)
        assert status == 200, panel["title"]
        rows, kinds = taken(target, answer), [column["type"] for column in target["columns"]]
        assert rows, panel["title"]
        assert "number" in kinds, panel["title"]
        if target["format"] == "timeseries":
            # Rows become series by their one word, and only when they come in the order of time.
            assert kinds[0] == "timestamp" and kinds.count("string") <= 1, panel["title"]
            times = [row[target["columns"][0]["text"]] for row in rows]
            assert times == sorted(times), panel["title"]
        else:
            assert "timestamp" not in kinds, panel["title"]


def test_panels_are_asked_of_the_page_where_the_profile_serves_it(page: RunningPage, tmp_path: Path) -> None:
    folder = tmp_path / "shop"
    folder.mkdir()
    (folder / "pipeline.py").write_text((page.project.folder / "pipeline.py").read_text() + OF_ALL_KINDS)
    project = load_project(folder)

    def addresses(options: PageOptions) -> tuple[list[str], set[str]]:
        with_page = replace(project, profile=replace(project.profile, page=options))
        written, left = write_grafana(with_page, tmp_path, prometheus="http://p:9090")
        (provided,) = [each for each in written if each.parent.name == "datasources"]
        sources = yaml.safe_load(provided.read_text())["datasources"]
        assert all("secureJsonData" not in one for one in sources)
        return [one["url"] for one in sources if one["name"] == "Page of commerce"], {
            one.title for one in left
        }

    assert addresses(PageOptions()) == (["http://127.0.0.1:8600"], set())
    assert addresses(PageOptions(host="0.0.0.0", port=8700)) == (["http://localhost:8700"], set())
    assert addresses(PageOptions(host="::1", certificate="a.pem")) == (["https://[::1]:8600"], set())
    titles = {panel.title for panel in project.pipeline.panels}
    assert addresses(PageOptions(serve="off")) == ([], titles)
    assert addresses(PageOptions(port=0)) == ([], titles)
    written, _ = write_grafana(project, tmp_path, prometheus="http://p:9090")
    (path,) = [each for each in written if each.name == "commerce-page.json"]
    last = json.loads(path.read_text())["panels"][-1]
    kinds = ["number", "boolean", "timestamp", "string", "string"]
    assert [column["type"] for column in last["targets"][0]["columns"]] == kinds
    assert last["targets"][0]["format"] == "table"
