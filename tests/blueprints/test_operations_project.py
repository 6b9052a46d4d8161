"""The operations blueprint as a user gets it: the files, the pipeline, and what its lesson says."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from headrace.blueprints import project_files, write_project
from headrace.blueprints.operations.pipeline import pipeline
from headrace.operate.project import load_project
from headrace.sql import plan_pipeline
from headrace.sql.plan import TableClass
from headrace.testing import PipelineTest
from own_tests import own_tests_pass

WINDOWED = ("service_health", "click_traffic", "transaction_totals", "account_risk")
VIEWS = ("risky_accounts", "malformed_by_minute")


def text_of(path: str) -> str:
    return project_files("operations")[path].decode()


def code(challenge: str, step: str) -> str:
    text = (
        text_of("README.md").split(f"### {challenge}")[1].split(f"<summary>{step}")[1].split("</details>")[0]
    )
    return text.split("```python\n")[1].split("```")[0]


def test_the_pipeline_is_right_and_keeps_its_tables_as_meant():
    kinds = {table.name: table.kind for table in plan_pipeline(pipeline).tables}
    assert kinds == {
        **dict.fromkeys(WINDOWED, TableClass.WINDOWED),
        **dict.fromkeys(VIEWS, TableClass.VIEW),
    }
    assert all(table.key for table in plan_pipeline(pipeline).tables), "a replica sends only what has changed"


@pytest.mark.parametrize("profile", ["local", "postgresql", "kafka", "cluster", "compose"])
def test_every_profile_can_be_read(tmp_path, monkeypatch, profile):
    monkeypatch.setenv("BROKERS", "localhost:9092")
    monkeypatch.setenv("SPARK_MASTER", "local[2]")
    write_project("operations", tmp_path)
    loaded = load_project(tmp_path, profile=profile)
    assert loaded.profile.stream("events").partitions == 3
    assert loaded.pipeline == pipeline


def test_the_script_for_the_database_is_what_export_sql_prints(tmp_path):
    write_project("operations", tmp_path)
    done = subprocess.run(
        [sys.executable, "-m", "headrace", "export", "sql", "--profile", "kafka", "--roles"],
        cwd=tmp_path, capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    assert done.stdout == text_of("sql/init.sql")


def test_the_views_for_dashboards_begin_with_time_and_read_tables_that_are_there():
    views = re.findall(
        r"CREATE OR REPLACE VIEW headrace\.(\w+) AS\nSELECT (.+?)\nFROM", text_of("sql/views.sql"), re.S
    )
    assert len(views) == 8
    assert all(re.match(r'[\w()]+ AS "time"', columns) for _, columns in views)
    read = set(re.findall(r"FROM headrace\.(\w+)", text_of("sql/views.sql")))
    assert read == {*WINDOWED, *VIEWS, "_headrace_cursors"} - {"account_risk"}


def test_the_lessons_windows_hold_the_numbers_that_it_shows():
    with PipelineTest(pipeline, start="2026-03-01T12:00:00") as test:
        for minute in range(5):
            at = f"2026-03-01T12:0{minute}:00"
            said = {"event_id": at, "timestamp": at, "transaction_id": at, "account": "a", "status": "failed"}
            test.send("events", {"kind": "transaction", "amount": 1, "currency": "EUR", **said}, at=at)
        test.advance("20 minutes")
        found = {row["window_start"].strftime("%H:%M"): row["failed"] for row in test.table("account_risk")}
        risky = [row["window_start"].strftime("%H:%M") for row in test.table("risky_accounts")]
    lesson = text_of("README.md")
    begins, failed = (
        [cell.strip(" *") for cell in re.search(rf"^\| {word} \|(.*)\|$", lesson, re.MULTILINE)[1].split("|")]
        for word in ("begins", "failed")
    )
    shown = {begin: int(count) for begin, count in zip(begins, failed, strict=True) if "…" not in begin}
    within = [clock for clock in found if clock not in shown]
    assert within == ["11:55", "11:56", "11:57", "11:58", "11:59", "12:00"] == risky
    assert {clock: found[clock] for clock in shown} == shown
    assert {found[clock] for clock in within} == {5}


@pytest.mark.slow
def test_the_project_passes_its_own_tests_also_after_the_challenges(tmp_path):
    write_project("operations", tmp_path)
    path = tmp_path / "pipeline.py"
    text, tables = re.subn(
        r"(?=^# Sliding: windows of 5 minutes)",
        code("2.", "Step 1") + "\n",
        path.read_text(),
        flags=re.MULTILINE,
    )
    assert tables == 1
    path.write_text(text + "\n" + code("3.", "Solution"))
    tests = tmp_path / "tests" / "test_operations.py"
    tests.write_text(tests.read_text() + "\n\n" + code("2.", "Step 3"))
    plan_pipeline(load_project(tmp_path).pipeline)
    own_tests_pass(tmp_path)
