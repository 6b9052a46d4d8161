"""Files for Prometheus, Alertmanager and Grafana are right in the eyes of the tools that read them."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest
import yaml
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.alerting import Rule
from grafana_foundation_sdk.models.dashboard import Dashboard

from headrace.errors import ProfileError, RefusedError
from headrace.observe.export_grafana import charts, metrics_dashboard
from headrace.observe.grafana_tables import tables_dashboard
from headrace.observe.metrics import METRICS
from headrace.operate import Project, load_project
from headrace.operate.alerting import rules_of
from headrace.operate.export_monitoring import write_alertmanager, write_grafana, write_prometheus
from servers.alertmanager import amtool
from servers.prometheus import promtool

PIPELINE = """
import headrace as hr

pipeline = hr.Pipeline("shop")
pipeline.stream("events", schema="id VARCHAR NOT NULL, happened TIMESTAMP NOT NULL", event_time="happened")
pipeline.table("counted", "SELECT count(*) AS n FROM events")
pipeline.alert("many", "SELECT n > 3 FROM counted", severity="critical", summary='More than "3" {{ here }}.')
pipeline.alert("delay", "SELECT n > 100 FROM counted", hold="1 minute")
"""
PROFILES = """
[profiles.local]
metrics = { port = 9464 }
[profiles.local.alerts]
bad_percent = 10
delay = "90 seconds"
notify.ops = { kind = "webhook", url = "http://127.0.0.1:9/${env:HOOK}", token = "${env:HOOK}" }
notify.chat = { kind = "slack", url = "http://127.0.0.1:9/slack", severity = "critical" }
notify.mail = { kind = "email", to = ["a@example.com"], user = "me", password = "${env:HOOK}" }
[profiles.silent]
alerts.notify.mail = { kind = "email", to = ["a@example.com"] }
[profiles.cluster]
engine = "spark"
spark.ui.enabled = true
spark.ui.port = 4055
streams.events = { log = "kafka", brokers = "broker:9092", topic = "events" }
metrics = { port = 9464, generator = "maker:9465", targets = { kafka = "broker:9308", node = "host:9100" } }
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    monkeypatch.setenv("HOOK", "a-secret")
    (tmp_path / "pipeline.py").write_text(PIPELINE)
    (tmp_path / "headrace.toml").write_text(PROFILES)
    return load_project(tmp_path)


def exported(project: Project, folder: Path, **options: object) -> list[Path]:
    given: dict[str, object] = {"generator": None, "spark": None, "others": (), "alertmanager": None}
    return write_prometheus(project, folder, **(given | options))  # type: ignore[arg-type]


def scraped(files: list[Path]) -> dict[str, tuple[str, str]]:
    jobs = yaml.safe_load(files[0].read_text())["scrape_configs"]
    return {job["job_name"]: (job["static_configs"][0]["targets"][0], job["metrics_path"]) for job in jobs}


def test_prometheus_is_told_of_everything_that_the_profile_names(project: Project, tmp_path: Path) -> None:
    cluster = load_project(tmp_path, profile="cluster")
    files = exported(cluster, tmp_path / "all")
    assert scraped(files) == {
        "headrace": ("127.0.0.1:9464", "/metrics"),
        "generator": ("maker:9465", "/metrics"),
        "spark_driver": ("localhost:4055", "/metrics/prometheus"),
        "spark_executors": ("localhost:4055", "/metrics/executors/prometheus"),
        "kafka": ("broker:9308", "/metrics"),
        "node": ("host:9100", "/metrics"),
    }
    given = {"generator": "other:1", "spark": "driver:2", "others": ("node=elsewhere:3", "database=db:4")}
    told = scraped(exported(cluster, tmp_path / "told", **given))
    assert (told["generator"][0], told["spark_driver"][0]) == ("other:1", "driver:2")
    assert (told["node"][0], told["kafka"][0], told["database"][0]) == ("elsewhere:3", "broker:9308", "db:4")
    assert set(scraped(exported(project, tmp_path / "local"))) == {"headrace"}


def test_a_page_of_spark_that_is_off_as_it_is_by_default_is_not_scraped(
    project: Project, tmp_path: Path
) -> None:
    for said in ("", "spark.ui.enabled = false\n"):
        (tmp_path / "headrace.toml").write_text(PROFILES.replace("spark.ui.enabled = true\n", said))
        jobs = scraped(exported(load_project(tmp_path, profile="cluster"), tmp_path / "off"))
        assert set(jobs) == {"headrace", "generator", "kafka", "node"}


def test_each_rule_fires_in_its_test_and_stays_calm_in_another(
    project: Project, tmp_path: Path, prometheus_here: None
) -> None:
    written = exported(
        project, tmp_path, generator="127.0.0.1:9465", spark="127.0.0.1:4040", others=["node=127.0.0.1:9100"]
    )
    folder = written[0].parent
    assert "SUCCESS" in promtool("check", "config", "prometheus.yml", folder=folder)
    rules = rules_of(project)
    assert f"{len(rules)} rules found" in promtool("check", "rules", "headrace.rules.yml", folder=folder)
    said = promtool("test", "rules", "headrace.rules.test.yml", folder=folder)
    assert "SUCCESS" in said
    tests = (folder / "headrace.rules.test.yml").read_text()
    for rule in rules:
        assert tests.count(f"alertname: {rule.name}\n") == 2
    # An alert of the pipeline takes the place of the one that every pipeline has.
    assert [rule.origin for rule in rules if rule.name == "delay"] == ["pipeline"]


def test_thresholds_of_the_profile_are_those_of_the_rules(project: Project, tmp_path: Path) -> None:
    written = exported(project, tmp_path)
    rules = written[1].read_text()
    assert "> 0.1 and" in rules
    assert "More than 10 % of the records" in rules
    assert "Records wait, and nothing was committed for 1 minute." in rules
    assert "The disk is full, or will be within 4 hours at this rate." in rules


def test_alertmanager_takes_the_notifiers_in_a_file_that_is_private(
    project: Project, tmp_path: Path, alertmanager_here: None
) -> None:
    (path,) = write_alertmanager(project, tmp_path, reveal=True)
    said = amtool("check-config", "alertmanager.yml", folder=path.parent)
    assert "4 receivers" in said
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_secrets_are_written_only_when_that_is_wanted(project: Project, tmp_path: Path) -> None:
    with pytest.raises(RefusedError, match="needs the secrets of 'ops', 'chat', 'mail'"):
        write_alertmanager(project, tmp_path, reveal=False)
    silent = load_project(project.folder, profile="silent")
    (path,) = write_alertmanager(silent, tmp_path, reveal=False)
    assert "a-secret" not in path.read_text()
    dashboards, _ = write_grafana(project, tmp_path, prometheus="http://p:9090")
    for made in (*exported(project, tmp_path), *dashboards):
        assert "a-secret" not in made.read_text()


@pytest.mark.parametrize("address", ["localhost", "localhost:x", ":9000", "localhost:70000"])
def test_an_address_that_is_none_is_said(project: Project, tmp_path: Path, address: str) -> None:
    with pytest.raises(ProfileError, match="is not an address"):
        exported(project, tmp_path, generator=address)


def test_a_profile_without_metrics_says_what_to_write(project: Project, tmp_path: Path) -> None:
    silent = load_project(project.folder, profile="silent")
    with pytest.raises(ProfileError, match="profile 'silent' serves no metrics"):
        exported(silent, tmp_path)


def test_grafanas_sdk_reads_every_panel_of_the_dashboard(project: Project, tmp_path: Path) -> None:
    written, left = write_grafana(project, tmp_path, prometheus="http://prometheus:9090")
    assert left == []
    document = json.loads(written[0].read_text())
    read = json.loads(json.dumps(Dashboard.from_json(document), cls=JSONEncoder))
    assert len(read["panels"]) == len(document["panels"]) == len(list(charts()))
    for panel, wanted in zip(read["panels"], document["panels"], strict=True):
        for name in ("id", "type", "title", "gridPos", "datasource", "targets"):
            assert panel[name] == wanted[name] or {**panel[name], **wanted[name]} == panel[name]


def test_long_names_of_which_only_the_end_differs_have_uids_of_their_own(tmp_path: Path) -> None:
    long = "a_pipeline_of_a_name_of_forty_characters"
    (tmp_path / "pipeline.py").write_text(PIPELINE.replace('"shop"', f'"{long}"'))
    (tmp_path / "headrace.toml").write_text("")
    written, _ = write_grafana(load_project(tmp_path), tmp_path, prometheus="http://prometheus:9090")
    (group,) = yaml.safe_load(written[-1].read_text())["groups"]
    found = {made["uid"] for made in group["rules"]}
    assert len(found) == len(group["rules"]) > 2
    tables = {tables_dashboard(long, replica, [])["uid"] for replica in ("one", "two")}
    assert len(tables) == 2
    assert {len(uid) for uid in found | tables} == {40}


def test_grafana_has_every_alert_that_prometheus_has(project: Project, tmp_path: Path) -> None:
    written, _ = write_grafana(project, tmp_path, prometheus="http://prometheus:9090")
    (group,) = yaml.safe_load(written[-1].read_text())["groups"]
    rules = {rule.name: rule for rule in rules_of(project)}
    assert len(group["rules"]) == len(rules)
    assert len({made["uid"] for made in group["rules"]}) == len(rules)
    for made in group["rules"]:
        rule = rules[made["title"].removeprefix("shop: ")]
        assert made["labels"]["severity"] == rule.severity
        assert made["condition"] in {query["refId"] for query in made["data"]}
        read = json.loads(json.dumps(Rule.from_json({**made, "folderUID": "x"}), cls=JSONEncoder))
        assert read["data"][0]["model"]["expr"] == made["data"][0]["model"]["expr"]
        assert [query["datasourceUid"] for query in read["data"]] == ["prometheus", "__expr__"]


def test_a_dashboard_shows_every_metric_and_none_that_is_not_there() -> None:
    text = json.dumps(metrics_dashboard("shop"))
    known = {metric.name for metric in METRICS}
    for name in known - {"headrace_build_info", "headrace_start_timestamp_seconds", "headrace_disk_bytes"}:
        assert name in text
    used = {
        word
        for word in text.replace("(", " ").replace("[", " ").replace("{", " ").split()
        if "headrace_" in word
    }
    for word in used:
        base = word.strip('",)').removesuffix("_bucket").removesuffix("_sum").removesuffix("_count")
        assert base in known, word
