"""Panels over Elasticsearch, for Kibana and Grafana: what they ask is asked here, after the blueprint ran."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from searching import Searched, grafana_search, kibana_search

from headrace.blueprints import write_project
from headrace.blueprints.customers.pipeline import pipeline
from headrace.operate import load_project
from headrace.operate.export_monitoring import write_grafana, write_kibana
from servers.guard import wait_until

pytestmark = pytest.mark.slow

LEFT_OUT = {"Quality score", "Rejected records"}
CHARTS = {"line", "area", "histogram", "horizontal_bar", "pie", "metric", "table"}


class Shop:
    """The blueprint's project, with indices of its own."""

    def __init__(self, folder: Path, url: str) -> None:
        self.folder, self.prefix = folder, f"t{uuid.uuid4().hex[:10]}-"
        self.environment = {**os.environ, "ELASTICSEARCH_URL": url}
        write_project("customers", folder)
        path = folder / "headrace.toml"
        own = f'kind = "elasticsearch", prefix = "{self.prefix}", cursors = ".{self.prefix}cursors"'
        path.write_text(path.read_text().replace('kind = "elasticsearch"', own))

    def headrace(self, *words: str) -> None:
        done = subprocess.run(
            [sys.executable, "-m", "headrace", *words, "--profile", "elasticsearch"],
            cwd=self.folder, env=self.environment, capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def shop(elasticsearch_server: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    """A shop whose tables are in Elasticsearch, with every measure of the pipeline."""
    shop = Shop(tmp_path_factory.mktemp("panels") / "shop", elasticsearch_server)
    searched = Searched(elasticsearch_server)

    def both_rates() -> bool:
        # A rate is the difference of two samples, 10 seconds apart.
        shop.headrace("generate", "customers", "--rate", "unlimited", "--count", "300")
        shop.headrace("run", "--until-caught-up")
        measures = {"query": {"match_all": {}}, "aggs": {"m": {"terms": {"field": "measure", "size": 50}}}}
        rows = searched.rows(f"{shop.prefix}pipeline-metrics", {"size": 0, **measures})
        return {"records_per_second", "error_share", "latency_seconds"} <= {row["m"] for row in rows}

    wait_until(both_rates, what="the pipeline has measured itself", seconds=120)
    yield shop
    httpx.delete(f"{elasticsearch_server}/{shop.prefix}*,.{shop.prefix}*", timeout=60)


@pytest.fixture
def project(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("ELASTICSEARCH_URL", shop.environment["ELASTICSEARCH_URL"])
    return load_project(shop.folder, profile="elasticsearch")


def in_parts(written: Path) -> dict[str, list[dict[str, Any]]]:
    objects: dict[str, list[dict[str, Any]]] = {"index-pattern": [], "visualization": [], "dashboard": []}
    for line in written.read_text().splitlines():
        made = json.loads(line)
        objects[made["type"]].append(made)
    return objects


def test_saved_objects_refer_to_each_other_and_have_all_that_an_import_asks_for(
    project: Any, tmp_path: Path
) -> None:
    (path,), left = write_kibana(project, tmp_path)
    objects = in_parts(path)
    assert {one.title for one in left} == LEFT_OUT
    known = {(one["type"], one["id"]) for several in objects.values() for one in several}
    assert len(known) == len(path.read_text().splitlines()), "two objects have one id"
    for kind, version in {"index-pattern": "7.6.0", "visualization": "7.10.0", "dashboard": "7.9.3"}.items():
        for one in objects[kind]:
            assert set(one) == {"id", "type", "attributes", "references", "migrationVersion"}
            assert one["migrationVersion"] == {kind: version}
            assert one["attributes"]["title"]
            for reference in one["references"]:
                assert (reference["type"], reference["id"]) in known
    for one in objects["visualization"]:
        source = json.loads(one["attributes"]["kibanaSavedObjectMeta"]["searchSourceJSON"])
        assert [reference["name"] for reference in one["references"]] == [source["indexRefName"]]
        state = json.loads(one["attributes"]["visState"])
        assert state["type"] in CHARTS
        assert json.loads(one["attributes"]["uiStateJSON"]) == {}
        identities = [each["id"] for each in state["aggs"]]
        assert len(identities) == len(set(identities))
        assert any(each["schema"] == "metric" for each in state["aggs"])
        if state["type"] not in ("pie", "metric", "table"):
            measured = [each["id"] for each in state["aggs"] if each["schema"] == "metric"]
            assert [each["data"]["id"] for each in state["params"]["seriesParams"]] == measured
            axes = {each["id"] for each in state["params"]["valueAxes"]}
            assert {each["valueAxis"] for each in state["params"]["seriesParams"]} == axes
    (dashboard,) = objects["dashboard"]
    panels = json.loads(dashboard["attributes"]["panelsJSON"])
    assert [each["panelRefName"] for each in panels] == [each["name"] for each in dashboard["references"]]
    assert len({each["panelIndex"] for each in panels}) == len(panels)
    assert all(each["gridData"]["x"] + each["gridData"]["w"] <= 48 for each in panels)
    titles = {one["attributes"]["title"] for one in objects["visualization"]}
    assert titles == {panel.title for panel in pipeline.panels} - LEFT_OUT


def test_every_chart_of_kibana_has_rows_of_fields_that_are_there(
    project: Any, tmp_path: Path, elasticsearch_server: str
) -> None:
    (path,), _ = write_kibana(project, tmp_path)
    objects, searched = in_parts(path), Searched(elasticsearch_server)
    views = {one["id"]: one["attributes"] for one in objects["index-pattern"]}
    for view in views.values():
        if "timeFieldName" in view:
            assert searched.mapping(view["title"])[view["timeFieldName"]] == "date"
    for one in objects["visualization"]:
        view = views[one["references"][0]["id"]]
        fields = searched.mapping(view["title"])
        for each in json.loads(one["attributes"]["visState"])["aggs"]:
            kind = fields[each["params"]["field"]]
            if each["type"] in ("sum", "avg"):
                assert kind in ("long", "integer", "double")
            elif each["type"] == "date_histogram":
                assert kind == "date"
            elif each["type"] == "terms":
                assert kind == "keyword"
        rows = searched.rows(view["title"], kibana_search(one["attributes"], view))
        assert rows, one["attributes"]["title"]
        assert all(value is not None for row in rows for value in row.values()), one["attributes"]["title"]


def test_every_panel_of_grafana_has_rows_of_fields_that_are_there(
    project: Any, tmp_path: Path, elasticsearch_server: str
) -> None:
    written, left = write_grafana(project, tmp_path, prometheus="http://prometheus:9090")
    assert left == []
    (path,) = [each for each in written if each.name == "customers-page.json"]
    assert {panel["title"] for panel in json.loads(path.read_text())["panels"]} == LEFT_OUT
    (path,) = [each for each in written if each.name == "customers-search.json"]
    (provided,) = [each for each in written if each.parent.name == "datasources"]
    sources = {one["uid"]: one for one in yaml.safe_load(provided.read_text())["datasources"]}
    searched, dashboard = Searched(elasticsearch_server), json.loads(path.read_text())
    assert {panel["title"] for panel in dashboard["panels"]} == {
        one.title for one in pipeline.panels
    } - LEFT_OUT
    for panel in dashboard["panels"]:
        source, (target,) = sources[panel["datasource"]["uid"]], panel["targets"]
        assert source["url"] == elasticsearch_server
        index, time = source["jsonData"]["index"], source["jsonData"]["timeField"]
        fields = searched.mapping(index)
        named = {one["field"] for one in (*target["bucketAggs"], *target["metrics"]) if "field" in one}
        assert named <= set(fields)
        assert fields[time] == "date" and target["timeField"] == time
        rows = searched.rows(index, grafana_search(target, time))
        assert rows, panel["title"]
        assert all(value is not None for row in rows for value in row.values()), panel["title"]
