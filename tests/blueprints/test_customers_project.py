"""The customers blueprint as a user gets it: the files, the pipeline, and what its lesson says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from headrace.blueprints import project_files, write_project
from headrace.blueprints.customers.pipeline import pipeline
from headrace.operate.project import load_project
from headrace.replicate.elasticsearch.mapping import index_names
from headrace.replicate.shapes import shape_of
from headrace.sql import plan_pipeline
from headrace.sql.plan import TableClass
from headrace.testing import PipelineTest
from own_tests import own_tests_pass


def text_of(path: str) -> str:
    return project_files("customers")[path].decode()


def test_the_pipeline_is_right_and_keeps_its_tables_as_meant() -> None:
    kinds = {table.name: table.kind for table in plan_pipeline(pipeline).tables}
    assert kinds == {
        "category_metrics": TableClass.WINDOWED,
        "customer_activity": TableClass.KEYED,
        "city_sales": TableClass.WINDOWED,
        "quality": TableClass.VIEW,
        "pipeline_metrics": TableClass.VIEW,
    }
    assert all(table.key for table in plan_pipeline(pipeline).tables), "a replica sends only what has changed"


@pytest.mark.parametrize("profile", ["local", "elasticsearch", "kafka", "cluster", "compose"])
def test_every_profile_can_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, profile: str) -> None:
    monkeypatch.setenv("ELASTICSEARCH_URL", "http://127.0.0.1:9200")
    monkeypatch.setenv("BROKERS", "localhost:9092")
    monkeypatch.setenv("SPARK_MASTER", "local[2]")
    write_project("customers", tmp_path)
    loaded = load_project(tmp_path, profile=profile)
    assert loaded.profile.stream("events").partitions == 3
    assert loaded.pipeline == pipeline


def test_the_indices_are_those_that_the_lesson_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ELASTICSEARCH_URL", "http://127.0.0.1:9200")
    write_project("customers", tmp_path)
    replica = load_project(tmp_path, profile="elasticsearch").profile.replicas["search"]
    shapes = tuple(shape_of(table, replica) for table in plan_pipeline(pipeline).tables)
    rows = re.findall(r"^\| `(\w+)` \| `([\w-]+)` \| `(\w+)` \|$", text_of("README.md"), re.MULTILINE)
    assert index_names(replica, shapes, "search") == {table: index for table, index, _ in rows}
    columns = {shape.name: {c.name: c.type for c in shape.columns} for shape in shapes}
    assert all(columns[table][field].startswith("TIMESTAMP") for table, _, field in rows)


def test_the_lessons_rules_are_those_of_the_pipeline() -> None:
    section = text_of("README.md").split("## Data quality")[1].split("How often")[0]
    named = set(re.findall(r"`(\w+)`", "".join(re.findall(r"^\| ([^|]*) \|", section, re.MULTILINE))))
    rules = {name for name, _ in pipeline.streams[0].expect}
    assert named - {"time_not_in_the_future"} == rules


def test_the_lessons_own_rule_works(tmp_path: Path) -> None:
    steps = re.findall(r"```python\n(.*?)```", text_of("README.md").split("### 2. A rule")[1], re.DOTALL)
    write_project("customers", tmp_path)
    path = tmp_path / "pipeline.py"
    text, put = re.subn(r'(?<=BETWEEN 1 AND 100",\n)', steps[0], path.read_text())
    assert put == 1
    path.write_text(text)
    rules = dict(load_project(tmp_path).pipeline.streams[0].expect)
    assert rules["city_not_empty"].on_violation == "warn"
    with PipelineTest(load_project(tmp_path).pipeline, start="2026-03-01T12:00:00") as test:
        record = {"timestamp": "2026-03-01T12:00:00Z", "customer_id": "a", "event_type": "view"}
        record |= {"product_category": "Toys", "product_id": "p", "quantity": 1}
        test.send("events", record, at="2026-03-01T12:00:01")
        test.advance("1 minute")
        checked = {row["rule"]: (row["checked"], row["warned"]) for row in test.table("quality")}
        assert checked["city_not_empty"] == (1, 1)
        assert checked["known_category"] == (1, 0)


@pytest.mark.slow
def test_the_project_passes_its_own_tests(tmp_path: Path) -> None:
    write_project("customers", tmp_path)
    own_tests_pass(tmp_path)
