"""A function of the pipeline runs where records are read: it may not stand where tables are."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pytest

import headrace as hr
from headrace.sql import plan_pipeline
from headrace.testing import PipelineTest

COUNTS = "SELECT kind, count(*) AS n FROM events GROUP BY kind"
WINDOWS = "FROM events GROUP BY window(seen, '5 minutes')"

OVER_GROUPS = [
    f"{COUNTS} HAVING double(count(*)) > 1",
    f"{COUNTS} HAVING n > 1 AND DOUBLE(n) > 1",
    "SELECT kind, double(count(*)) AS n FROM events GROUP BY kind",
    "SELECT kind, 1 + double(sum(id)) AS n FROM events GROUP BY kind",
    "SELECT kind, sum(id).double() AS n FROM events GROUP BY kind",
    "SELECT kind, sum(double(id)) AS n, double(n) AS m FROM events GROUP BY kind",
    "SELECT kind, list_transform([count(*)], lambda x: double(x)) AS n FROM events GROUP BY kind",
    "SELECT kind, CASE WHEN kind = 'a' THEN double(count(*)) END AS n FROM events GROUP BY kind",
    "SELECT id, double(id) AS d, count(*) AS n FROM events GROUP BY id",
    "SELECT count(*) AS n, double(1) AS d FROM events",
    f"SELECT window_start, double(epoch_ms(window_start)) AS d, count(*) AS n {WINDOWS}",
]

OVER_TABLES = [
    "SELECT double(n) AS d FROM counts",
    "SELECT n FROM counts WHERE double(n) > 1",
    "SELECT n.double() AS d FROM counts",
    "SELECT n FROM counts ORDER BY double(n), n",
    "SELECT sum(double(n)) AS d FROM counts",
    "SELECT kind, sum(n) AS d FROM counts GROUP BY kind HAVING double(sum(n)) > 1",
    "WITH twice AS (SELECT double(n) AS d FROM counts) SELECT d FROM twice",
    "SELECT n FROM counts WHERE n IN (SELECT double(n) FROM counts)",
    "SELECT d FROM counts, UNNEST([double(n)]) AS t(d)",
]

OVER_RECORDS = [
    ("SELECT id, double(id) AS d FROM events WHERE double(id) > 0", [{"id": 3, "d": 6}]),
    ("SELECT double(id) AS d, d + 1 AS e, count(*) AS n FROM events GROUP BY d", [{"d": 6, "e": 7, "n": 1}]),
    ("SELECT double(id) AS d FROM events GROUP BY double(id) HAVING double(id) > 5", [{"d": 6}]),
    ("SELECT CAST(sum(double(id)) AS INT) AS d FROM events HAVING sum(double(id)) = 6", [{"d": 6}]),
    ("SELECT count(*) FILTER (WHERE double(id) = 6) AS n FROM events", [{"n": 1}]),
    ("SELECT d, count(*) AS n FROM (SELECT double(id) AS d FROM events) AS s GROUP BY d", [{"d": 6, "n": 1}]),
    ("SELECT max(twice) AS d FROM events", [{"d": 6}]),
]


def double(numbers: pa.Array) -> pa.Array:
    return pc.multiply(numbers, 2)


def pipeline_with(query: str) -> hr.Pipeline:
    pipeline = hr.Pipeline("test")
    pipeline.function(double, arguments=["BIGINT"], returns="BIGINT")
    pipeline.stream(
        "events", schema="id BIGINT, kind VARCHAR, seen TIMESTAMP NOT NULL", event_time="seen",
        derive={"twice": "double(id)"},
    )  # fmt: skip
    pipeline.table("counts", COUNTS)
    if query:
        pipeline.table("t", query)
    return pipeline


def problem_of(pipeline: hr.Pipeline) -> hr.Problem:
    with pytest.raises(hr.DeclarationError) as raised:
        plan_pipeline(pipeline)
    first, *more = raised.value.problems
    assert all(other == first for other in more)
    assert Path(first.file).name == Path(__file__).name and first.line > 0
    return first


def test_a_function_of_ones_own_declares_where_it_is_written() -> None:
    assert plan_pipeline(pipeline_with("")).tables


@pytest.mark.parametrize("query", OVER_GROUPS)
def test_a_function_of_ones_own_over_groups_is_refused_with_what_to_write_instead(query: str) -> None:
    problem = problem_of(pipeline_with(query))
    place = (
        query.lower().rfind("double(") + 1 if "sum(double(" in query else query.lower().find("double(") + 1
    )
    assert problem.subject == "table 't'"
    assert problem.what.startswith(
        "'double' is a function of this pipeline, which sees records and no groups"
    )
    if ".double" not in query:
        assert f"(line 1, column {place} of the query)" in problem.what
    assert (
        problem.fix == "write it inside an aggregate, such as max(double(x)), after GROUP BY, or in `derive`"
    )


@pytest.mark.parametrize("query", OVER_TABLES)
def test_a_function_of_ones_own_in_a_view_is_refused_with_what_to_write_instead(query: str) -> None:
    problem = problem_of(pipeline_with(query))
    assert problem.subject == "table 't'"
    assert problem.what.startswith(
        "'double' is a function of this pipeline, which sees records and no tables"
    )
    assert problem.fix == "write it in the table over the stream, or in `derive`, and read its column here"


@pytest.mark.parametrize("query", OVER_TABLES)
def test_a_function_of_ones_own_in_a_panel_or_an_alert_is_refused_alike(query: str) -> None:
    panel, alert = pipeline_with(""), pipeline_with("")
    panel.panel("Twice", query)
    alert.alert("twice", f"SELECT count(*) > 1 FROM ({query})")
    for pipeline in (panel, alert):
        assert "which sees records and no tables" in problem_of(pipeline).what


def test_a_function_of_ones_own_is_no_parameter_of_a_quantile() -> None:
    problem = problem_of(pipeline_with("SELECT quantile_disc(id, double(1)) AS q FROM events"))
    assert problem.what.startswith("the second argument of quantile_disc() is not a constant")


def test_a_function_of_ones_own_runs_wherever_a_record_is_seen(tmp_path: Path) -> None:
    pipeline = pipeline_with("")
    for position, (query, _) in enumerate(OVER_RECORDS):
        pipeline.table(f"t{position}", query)
    with PipelineTest(pipeline, folder=tmp_path) as test:
        at = "2026-01-01T00:00:00Z"
        test.send("events", [{"id": 3, "kind": "a", "seen": at}], at=at)
        test.run()
        for position, (query, rows) in enumerate(OVER_RECORDS):
            assert test.table(f"t{position}") == rows, query
