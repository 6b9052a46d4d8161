"""The commerce blueprint as a user gets it: the files, the pipeline, and what its lesson says."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from headrace.blueprints import BLUEPRINTS, make_generator, project_files, write_project
from headrace.blueprints.commerce.pipeline import KNOWN_TYPES, pipeline
from headrace.errors import ProfileError, RefusedError
from headrace.observe.exposition import Exposition
from headrace.observe.gather import from_ledger
from headrace.observe.metrics import METRICS_BY_NAME
from headrace.operate.project import load_project
from headrace.sql import plan_pipeline
from headrace.sql.plan import TableClass
from headrace.testing import PipelineTest
from own_tests import own_tests_pass

pytestmark = pytest.mark.slow

CODE_OF_THE_PACKAGE = {"__init__.py", "catalogue.py", "generator.py", "people.py", "vocabulary.py"}


def folder_of(blueprint: str) -> Path:
    import headrace.blueprints

    return Path(headrace.blueprints.__file__).parent / blueprint


def step(number: int) -> str:
    """Return the Python code of one step of the lesson's second challenge."""
    lesson = project_files("commerce")["README.md"].decode()
    text = lesson.split(f"<summary>Step {number}:")[1].split("</details>")[0]
    return text.split("```python\n")[1].split("```")[0]


def after_the_lesson(folder: Path) -> Path:
    """Write a project and change it as the lesson says."""
    write_project("commerce", folder)
    path = folder / "pipeline.py"
    text = path.read_text()
    text, known = re.subn(r"^KNOWN_TYPES = .*\n", step(1), text, flags=re.MULTILINE)
    text, column = re.subn(r"^ +rating +INTEGER .*\n", step(2), text, flags=re.MULTILINE)
    text, rule = re.subn(r'(?=^ +"rating_in_range":)', step(3), text, flags=re.MULTILINE)
    text, table = re.subn(r'(?=^pipeline\.table\(\n    "funnel")', step(4), text, flags=re.MULTILINE)
    assert (known, column, rule, table) == (1, 1, 1, 1)
    path.write_text(text)
    tests = folder / "tests" / "test_commerce.py"
    text, replaced = re.subn(
        r"def test_a_review_is_not_known_yet.*?(?=\n\n\ndef )",
        step(6).rstrip(),
        tests.read_text(),
        flags=re.DOTALL,
    )
    assert replaced == 1
    tests.write_text(text)
    return folder


@pytest.mark.parametrize("blueprint", BLUEPRINTS)
def test_every_file_of_a_blueprint_is_code_or_part_of_a_project(blueprint):
    folder = folder_of(blueprint)
    present = {
        str(path.relative_to(folder))
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    present = {path for path in present if not path.startswith("monitoring/")}  # all of it is
    listed = set(__import__(f"headrace.blueprints.{blueprint}", fromlist=["x"]).PROJECT_FILES)
    assert present - CODE_OF_THE_PACKAGE == listed


def test_a_project_holds_what_a_user_needs(tmp_path):
    written = write_project("commerce", tmp_path / "shop")
    names = {str(path.relative_to(tmp_path / "shop")) for path in written}
    assert "monitoring/prometheus/headrace.rules.yml" in names
    assert {name for name in names if not name.startswith("monitoring/")} == {
        ".github/workflows/ci.yml",
        ".gitignore",
        "README.md",
        "deploy/compose.yaml",
        "headrace.toml",
        "pipeline.py",
        "pytest.ini",
        "tests/test_commerce.py",
    }
    assert load_project(tmp_path / "shop").pipeline == pipeline
    assert load_project(tmp_path / "shop").profile.stream("events").partitions == 3


def test_a_file_that_is_there_already_is_never_overwritten(tmp_path):
    (tmp_path / "README.md").write_text("mine")
    with pytest.raises(RefusedError, match=r"README\.md already") as refused:
        write_project("commerce", tmp_path)
    assert "empty" in refused.value.fix
    assert [path.name for path in tmp_path.iterdir()] == ["README.md"]


def test_a_folder_that_cannot_be_written_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RefusedError, match="cannot be written"):
        write_project("commerce", tmp_path / "file" / "shop")


def test_an_unknown_blueprint_names_the_nearest():
    with pytest.raises(ProfileError, match="did you mean 'commerce'"):
        project_files("comerce")


def test_the_pipeline_is_right_and_keeps_its_tables_as_meant():
    kinds = {table.name: table.kind for table in plan_pipeline(pipeline).tables}
    windowed = ("event_counts", "user_activity", "purchase_analytics", "device_stats", "location_stats",
                "product_popularity", "product_sales")  # fmt: skip
    assert kinds == {
        **dict.fromkeys(windowed, TableClass.WINDOWED),
        "sessions": TableClass.SESSION,
        "funnel": TableClass.VIEW,
        "events_clean": TableClass.ROWS,
    }


PANELS = {
    "Processing rate": ("line", "area"),
    "Processing delay": ("gauge",),
    "Events by type": ("pie",),
    "Events by type over time": ("bar",),
    "Batch size": ("line",),
    "Success rate": ("gauge", "number"),
    "Revenue per 10 minutes": ("line", "bar"),
    "Active users": ("line",),
    "Top products": ("horizontal_bar", "table"),
    "Conversion funnel": ("funnel",),
    "Devices": ("pie", "bar"),
    "Countries": ("map", "bar"),
    "Average purchase": ("number",),
    "Events per second": ("line",),
}
"""What the dashboard of a shop is promised to show, and the kinds of picture that do."""


def test_every_panel_that_is_promised_is_there_and_drawn_as_it_should_be():
    kinds = {panel.title: panel.kind for panel in pipeline.panels}
    assert set(PANELS) <= set(kinds)
    assert {title: kinds[title] for title in PANELS if kinds[title] not in PANELS[title]} == {}
    (batches,) = [panel for panel in pipeline.panels if panel.title == "Batch size"]
    assert re.findall(r"AS (p\d+)", batches.query) == ["p50", "p95", "p99"]


def test_the_taught_type_is_not_known_at_first():
    rules = dict(pipeline.streams[0].expect)
    assert "product_review" not in rules["known_type"].condition
    assert rules["purchase_total"].on_violation == "warn"


def test_the_project_passes_its_own_tests(tmp_path):
    write_project("commerce", tmp_path)
    own_tests_pass(tmp_path)


def test_a_newcomer_who_follows_the_lesson_gets_a_table_of_reviews(tmp_path):
    folder = after_the_lesson(tmp_path)
    plan = plan_pipeline(load_project(folder).pipeline)
    (table,) = [table for table in plan.tables if table.name == "product_reviews"]
    assert table.kind == TableClass.WINDOWED
    own_tests_pass(folder, "-k", "review")  # the others ran above


def test_the_lessons_dashboard_is_one_that_reads_metrics_which_exist():
    lesson = project_files("commerce")["README.md"].decode()
    dashboard = json.loads(lesson.split("### 4.")[1].split("```json\n")[1].split("```")[0])
    expressions = [panel["targets"][0]["expr"] for panel in dashboard["panels"]]
    named = {name for text in expressions for name in re.findall(r"headrace_\w+", text)}
    assert len(expressions) == len(named) == 3
    assert named <= set(METRICS_BY_NAME)


def test_the_lessons_windows_hold_the_numbers_that_it_shows():
    lesson = project_files("commerce")["README.md"].decode()
    steps = (
        ("12:00:10", "page_view"),
        ("12:00:50", "item_click"),
        ("12:03:20", "cart_add"),
        ("12:07:00", "purchase"),
        ("12:45:00", "page_view"),
    )
    with PipelineTest(pipeline, start="2026-03-01T12:00:00") as test:
        for clock, kind in steps:
            at = f"2026-03-01T{clock}"
            record = {
                "event_id": at,
                "event_type": kind,
                "user_id": "me",
                "timestamp": at,
                "device": "mobile",
            }
            test.send("events", record, at=at)
        test.advance("2 hours")
        sliding = {
            row["window_start"].strftime("%H:%M"): row["events"] for row in test.table("user_activity")
        }
        sessions = [(row["session_start"], row["events"], row["length_s"]) for row in test.table("sessions")]
        tumbling = test.query(
            "SELECT time_bucket(INTERVAL 10 MINUTES, window_start) AS begin, sum(events)::INT AS events "
            "FROM event_counts GROUP BY 1 ORDER BY 1"
        )
    begins, counts = (
        [cell.strip() for cell in re.search(rf"^\| {word} \|(.*)\|$", lesson, re.MULTILINE)[1].split("|")]
        for word in ("begins", "events")
    )
    shown = dict(zip(begins[:-1], map(int, counts[:-1]), strict=True))
    shown |= {f"12:{minute}": 1 for minute in range(41, 46)}
    assert sliding == shown
    assert sum(sliding.values()) == 25
    assert [row["events"] for row in tumbling] == [4, 1]
    assert [(events, length) for _, events, length in sessions] == [(4, 410), (1, 0)]
    assert [start.replace(tzinfo=None) for start, _, _ in sessions] == [
        datetime(2026, 3, 1, 12, 0, 10),  # noqa: DTZ001 - compared as text would be
        datetime(2026, 3, 1, 12, 45),  # noqa: DTZ001
    ]


def test_the_counter_that_dashboards_know_has_the_known_types_and_other_and_is_the_ledgers_sum():
    known = {part.strip(" '") for part in KNOWN_TYPES.split(",")}
    shares = [f"{name}_share=0.05" for name in ("malformed", "late", "duplicate", "review")]
    generator = make_generator("commerce", seed=7, settings=shares)
    at = datetime(2026, 3, 1, 12, tzinfo=UTC)
    with PipelineTest(pipeline, start=at) as test:
        test.send_bytes("events", generator.batch(at, 2_000, rate=20.0)["value"].to_pylist())
        test.run()
        text = Exposition(lambda: from_ledger(test.store.progress), list, known=True).text()[0].decode()
        outcomes = test.ledger().outcomes("events")
        counts = test.query("SELECT event_type, sum(events)::INT AS events FROM event_counts GROUP BY 1")
    found = {
        sample.labels["event_type"]: sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == "events_processed_total" and sample.labels["stream"] == "events"
    }
    assert found.keys() == known | {"other"}
    assert sum(found.values()) == sum(outcomes.values()) == 2_000
    assert outcomes["malformed"] > 0
    assert outcomes["rejected"] > 0, "reviews, which are not known yet"
    assert all(found[row["event_type"]] >= row["events"] > 0 for row in counts)


def test_a_generator_takes_its_settings_as_text():
    generator = make_generator(
        "commerce", seed=3, settings=["review_share=1", "users = 7", "disorder=500 ms"]
    )
    assert (generator.seed, generator.users, generator.disorder) == (3, 7, timedelta(milliseconds=500))
    batch = generator.batch(datetime(2026, 3, 1, tzinfo=UTC), 100, rate=10.0)
    assert sum(b"product_review" in value for value in batch["value"].to_pylist()) > 90


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ("reviewshare=1", "no setting 'reviewshare'; did you mean 'review_share'"),
        ("stream=x", "no setting 'stream'"),
        ("users", "'users' is not a setting"),
        ("users=many", "the setting users of the generator cannot be 'many'"),
        ("disorder=soon", "cannot be 'soon'"),
        ("late_share=7", "shares of the commerce generator"),
    ],
)
def test_a_setting_that_does_not_exist_or_fit_is_refused(setting, says):
    with pytest.raises(ProfileError, match=says):
        make_generator("commerce", settings=[setting])
