"""Plans of whole pipelines: streams, views in order, panels, alerts, functions, advice, explanations."""

# ruff: noqa: E501 - a case is a line
from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from sql_cases import SCHEMA, pipeline_of

import headrace as hr
from headrace.sql import explain_table, plan_pipeline
from headrace.sql.plan import TableClass


def shout(words: pa.Array) -> pa.Array:
    return pc.utf8_upper(words)


def test_derived_columns_follow_the_declared_ones_and_may_use_each_other() -> None:
    pipeline = hr.Pipeline("test")
    pipeline.stream(
        "events", schema="id INT, seen TIMESTAMP NOT NULL, tags VARCHAR[]", event_time="seen",
        derive={"twice": "id * 2", "more": "Twice + 1", "shouted": "list_transform(tags, lambda x: upper(x))"},
        expect={"small": hr.Expect("more < 100", on_violation="warn")},
    )  # fmt: skip
    stream = plan_pipeline(pipeline).streams["events"]
    assert [(derived.name, derived.sql, derived.type) for derived in stream.derived] == [
        ("twice", "(id * 2)", "INTEGER"),
        ("more", "(twice + 1)", "INTEGER"),
        ("shouted", "list_transform(tags, (lambda x: upper(x)))", "VARCHAR[]"),
    ]
    assert [column.name for column in stream.columns] == ["id", "seen", "tags", "twice", "more", "shouted"]
    assert [(check.name, check.sql, check.expect.on_violation) for check in stream.checks] == [
        ("small", "(more < 100)", "warn")
    ]


def test_views_stand_after_what_they_read_whatever_the_order_of_the_file() -> None:
    plan = plan_pipeline(pipeline_of(
        top="SELECT kind, share FROM shares WHERE share > 0.5",
        shares="SELECT kind, n / (SELECT sum(n) FROM counts) AS share FROM counts",
        counts="SELECT kind, count(*) AS n FROM events GROUP BY kind",
    ))  # fmt: skip
    assert [(table.name, table.kind, table.sources) for table in plan.tables] == [
        ("counts", TableClass.KEYED, ("events",)),
        ("shares", TableClass.VIEW, ("counts",)),
        ("top", TableClass.VIEW, ("shares",)),
    ]


def test_views_may_do_what_tables_over_streams_may_not() -> None:
    plan = plan_pipeline(pipeline_of(
        counts="SELECT kind, count(*) AS n FROM events GROUP BY kind",
        ranked="""
            WITH big AS (SELECT * FROM counts WHERE n > 1)
            SELECT kind, n, rank() OVER (ORDER BY n DESC) AS place, string_agg(kind, ',' ORDER BY kind) OVER () AS names
            FROM big WHERE kind NOT IN (SELECT max(kind) FROM counts) ORDER BY n LIMIT 10
        """,
        united="SELECT kind, n FROM counts UNION ALL SELECT 'all' AS kind, sum(n) AS n FROM counts",
        bad="SELECT stream, outcome, records FROM outcomes_by_minute WHERE outcome <> 'accepted'",
        waited="SELECT id, _record_time - seen AS delay FROM late_events",
    ))  # fmt: skip
    assert {table.kind for table in plan.tables[1:]} == {TableClass.VIEW}
    by_name = {table.name: table for table in plan.tables}
    assert by_name["bad"].sources == ("outcomes_by_minute",)
    assert by_name["ranked"].sources == ("counts",)
    assert [column.name for column in by_name["united"].columns] == ["kind", "n"]


def test_views_that_read_each_other_are_refused_once() -> None:
    with pytest.raises(hr.DeclarationError) as raised:
        plan_pipeline(
            pipeline_of(a="SELECT x FROM b", b="SELECT x FROM c", c="SELECT x FROM a", d="SELECT x FROM a")
        )
    assert [problem.what for problem in raised.value.problems] == [
        "views that read each other: a -> b -> c -> a"
    ]


@pytest.mark.parametrize(
    ("query", "what"),
    [
        ("SELECT kind FROM countz", "there is no table 'countz'; did you mean 'counts'?"),
        ("SELECT kinds FROM counts", 'Referenced column "kinds" not found in FROM clause!'),
        ("SELECT kind FROM counts, read_csv('x.csv')", "the table function 'read_csv'"),
        ("SELECT kind FROM 'x.csv'", "there is no table 'x.csv'"),
        ("SELECT getenv('HOME') AS home", "'getenv' reads more than tables"),
        ("DELETE FROM counts", "it is not a SELECT statement"),
        ("SELECT kind FROM events", "'events' is a stream"),
        ("SELECT kind FROM", "syntax error"),
        ("", "the query is empty"),
    ],
)
def test_panels_are_bound_and_may_read_tables_only(query: str, what: str) -> None:
    pipeline = pipeline_of(counts="SELECT kind, count(*) AS n FROM events GROUP BY kind")
    pipeline.panel("Kinds", query, kind="table")
    with pytest.raises(hr.DeclarationError) as raised:
        plan_pipeline(pipeline)
    assert any(what in str(problem) or not query for problem in raised.value.problems)


def test_panels_and_alerts_may_ask_for_the_time_and_read_the_system_tables() -> None:
    pipeline = pipeline_of(counts="SELECT kind, count(*) AS n FROM events GROUP BY kind")
    pipeline.panel("Rates", "SELECT minute, sum(records) FROM outcomes_by_minute WHERE minute > now() - INTERVAL 1 HOUR "
                            "GROUP BY minute ORDER BY 1", kind="line")  # fmt: skip
    pipeline.panel("Bad", "SELECT rule, sum(rejected) FROM rule_checks GROUP BY ALL", kind="bar")
    pipeline.panel("Dead", "SELECT stream, outcome, reasons[1].rule FROM dead_letters LIMIT 5", kind="table")
    pipeline.panel("Late", "SELECT * FROM late_events", kind="table")
    pipeline.panel("Speed", "SELECT max(committed_at) - min(committed_at) FROM epochs", kind="gauge")
    pipeline.alert("quiet", "SELECT max(n) < 5 AND now() > TIMESTAMP '2024-01-01' FROM counts")
    assert len(plan_pipeline(pipeline).panels) == 5


def test_an_alert_gives_true_or_false() -> None:
    pipeline = pipeline_of(counts="SELECT kind, count(*) AS n FROM events GROUP BY kind")
    pipeline.alert("quiet", "SELECT max(n) FROM counts")
    with pytest.raises(hr.DeclarationError) as raised:
        plan_pipeline(pipeline)
    assert [problem.what for problem in raised.value.problems] == ["the first column is BIGINT, not BOOLEAN"]


def test_a_function_of_the_user_may_stand_wherever_a_record_is_seen() -> None:
    pipeline = hr.Pipeline("test")
    pipeline.function("shout", arguments=("VARCHAR",), returns="VARCHAR")(shout)
    pipeline.stream("events", schema=SCHEMA, event_time="seen", derive={"loud": "shout(kind)"},
                    expect={"heard": "shout(kind) <> ''"})  # fmt: skip
    pipeline.table("t", "SELECT shout(kind) AS k, max(shout(user_id)) AS u FROM events GROUP BY k")
    plan = plan_pipeline(pipeline)
    assert plan.streams["events"].derived[0].type == "VARCHAR"
    assert [function.name for function in plan.streams["events"].functions] == ["shout"]
    assert [column.type for column in plan.tables[0].columns] == ["VARCHAR", "VARCHAR"]


def test_money_that_is_a_double_and_approximate_aggregates_are_advised_against() -> None:
    pipeline = hr.Pipeline("test")
    pipeline.stream(
        "sales", schema="id INT, total_amount DOUBLE, Price FLOAT, fee DECIMAL(9,2), priceless DOUBLE, "
                        "seen TIMESTAMP NOT NULL", event_time="seen",
    )  # fmt: skip
    pipeline.table("t", "SELECT approx_count_distinct(id) AS n FROM sales")
    warnings = plan_pipeline(pipeline).warnings
    assert [(warning.subject, warning.what.split()[0]) for warning in warnings] == [
        ("stream 'sales'", "'total_amount'"), ("stream 'sales'", "'Price'"), ("table 't'", "approx_count_distinct()"),
    ]  # fmt: skip
    assert "total_amount DECIMAL(12,2)" in warnings[0].fix


EXPLAINED = """\
revenue: windowed, every 10 minutes
  reads      events
  row key    window_start, kind
  columns    window_start TIMESTAMP WITH TIME ZONE
             kind VARCHAR
             revenue DECIMAL(38,2)
             buyers BIGINT

row part: DuckDB over batches of records, on both engines
  SELECT events._partition AS _partition, events._offset AS _offset, events._record_time AS _record_time, \
events.seen AS _time, events.kind AS k0, events.user_id AS a0, events.m AS a1 FROM _rows AS events WHERE events.ok

aggregate part: one row of state per tumbling window and key
  k0         VARCHAR
  g0         count_distinct(a0) BIGINT
             side table: values of a0 VARCHAR and their counts
  g1         sum(a1) DECIMAL(38,2)
             g1_sum DECIMAL(38,2) = CAST(sum("a1") AS DECIMAL(38,2))

result part: DuckDB, as a view over the state
  window_start = window_start
  kind = k0
  revenue = g1
  buyers = g0
  HAVING (g1 > 0)

engines
  local      partial aggregates of the batch, then one MERGE INTO the state
             and INSERTs of counted values for g0, added up now and then
  spark      executors: row part and partial aggregates of what they read; driver: adds them up,
             and the same statements"""


def test_an_explanation_shows_the_three_parts_the_state_and_the_engines() -> None:
    plan = plan_pipeline(pipeline_of(revenue="""
        SELECT window_start, kind, sum(m) AS revenue, count(DISTINCT user_id) AS buyers FROM events WHERE ok
        GROUP BY window(seen, '10 minutes'), kind HAVING sum(m) > 0
    """))  # fmt: skip
    assert explain_table(plan, "Revenue") == EXPLAINED


def test_every_class_is_explained_and_an_unknown_table_is_named_with_the_nearest() -> None:
    plan = plan_pipeline(pipeline_of(
        clean="SELECT * FROM events",
        visits="SELECT window_start, count(*) AS n FROM events GROUP BY session_window(seen, '30 minutes')",
        counts="SELECT kind, count(*) AS n FROM events GROUP BY kind",
        total="SELECT count(*) AS n FROM events",
        top="SELECT kind FROM counts",
    ))  # fmt: skip
    told = [explain_table(plan, name).splitlines() for name in ("clean", "visits", "counts", "total", "top")]
    assert [lines[0] for lines in told] == [
        "clean: rows", "visits: session, a session ends after a gap of 30 minutes", "counts: keyed", "total: keyed", "top: view",
    ]  # fmt: skip
    assert [line.split(maxsplit=1)[1] for lines in told for line in lines if line.startswith("  local ")] == [
        "the row part of the batch, then one INSERT",
        "sessions that touch are merged: DELETE and INSERT in one transaction",
        "partial aggregates of the batch, then one MERGE INTO the state",
        "partial aggregates of the batch, then one UPDATE of the row",
        "a view in the store",
    ]
    with pytest.raises(hr.DeclarationError) as raised:
        explain_table(plan, "cleen")
    assert "did you mean 'clean'?" in str(raised.value)


def test_importing_the_planner_imports_neither_duckdb_nor_arrow() -> None:
    import subprocess
    import sys

    code = "import sys, headrace.sql; sys.exit(bool({'duckdb', 'pyarrow'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
