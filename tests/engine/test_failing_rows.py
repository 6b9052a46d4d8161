"""Rows on which one table fails: found in one statement when they are many, and counted to the last."""

from typing import Any

import duckdb
import pyarrow as pa
import pytest

import headrace as hr
from headrace.engine.local.failing import set_aside
from headrace.engine.local.queries import Queries
from headrace.testing import PipelineTest

TABLES = {
    "numbers": "SELECT CAST(text AS INT) AS number, count(*) AS n FROM events WHERE id <> 'e7' GROUP BY 1",
    "listed": """
        SELECT sum(CAST(part AS INT)) AS total FROM events, UNNEST(parts) AS p(part)
        WHERE CAST(text AS INT) >= 0""",
    "overall": "SELECT count(*) AS n FROM events",
}


def shop() -> hr.Pipeline:
    pipeline = hr.Pipeline("shop")
    schema = "id VARCHAR, seen TIMESTAMP NOT NULL, text VARCHAR, parts VARCHAR[]"
    pipeline.stream("events", schema=schema, event_time="seen")
    for name, query in TABLES.items():
        pipeline.table(name, query)
    return pipeline


def event(number: int, text: str | None = "1", part: str = "2") -> dict[str, Any]:
    return {"id": f"e{number}", "seen": "2026-03-01T12:00:00Z", "text": text, "parts": ["1", part]}


def test_many_failing_rows_are_set_aside_and_every_one_is_counted() -> None:
    texts = ["x" if n % 3 == 0 else "1" for n in range(600)]
    with PipelineTest(shop()) as test:
        records = [event(n, text, "y" if n == 100 else "2") for n, text in enumerate(texts)]
        test.send("events", [*records, event(600, None)], at="2026-03-01T12:01:00Z")
        test.run()
        assert sorted(test.table("numbers"), key=str) == [
            {"number": 1, "n": 399}, {"number": None, "n": 1}
        ]  # fmt: skip
        assert test.table("listed") == [{"total": 399 * 3}]
        assert test.table("overall") == [{"n": 601}]
        ledger = test.ledger()
        assert ledger.balanced
        lines = {line.table: (line.kept, line.filtered, line.failed) for line in ledger.tables}
        assert lines["numbers"] == (400, 1, 200)
        assert lines["listed"] == (399, 1, 201)
        reasons = test.query("SELECT reason FROM _headrace.failed_rows")
        assert all("Conversion Error" in row["reason"] for row in reasons)


def test_what_no_single_statement_can_find_is_found_by_halves() -> None:
    count = 50
    rows = pa.table(
        {
            "_partition": pa.array([0] * count, pa.int32()),
            "_offset": pa.array(range(count), pa.int64()),
            "text": pa.array(["x" if n in (0, 30, 49) else "1" for n in range(count)], pa.string()),
        }
    )
    queries = Queries(duckdb.connect())
    row_sql = (
        "SELECT _rows._partition AS _partition, _rows._offset AS _offset, "
        "CAST(text AS INT) + CAST(random() AS INT) AS k0 FROM _rows"
    )
    good, failed = set_aside(queries, row_sql, rows)
    assert good.num_rows == count - 3
    assert [(row.partition, row.offset) for row in failed] == [(0, 0), (0, 30), (0, 49)]


GUARDED = (
    "kind = 'text' OR CAST(number AS INT) > 3",
    "CAST(number AS INT) > 3 OR kind = 'text'",
    "kind = 'number' AND CAST(number AS INT) > 3",
    "CAST(number AS INT) > 3 AND kind = 'number'",
    "kind = 'text' OR (kind = 'number' AND CAST(number AS INT) > 3)",
    "(kind = 'text' OR CAST(number AS INT) > 3) AND (number <> 'zzz' OR CAST(number AS INT) = 1)",
    "NOT (kind = 'text' OR CAST(number AS INT) > 3)",
    "CASE WHEN kind = 'text' THEN true ELSE CAST(number AS INT) > 3 END",
    "CAST(number AS INT) > 3",
    "kind = 'number' AND (number IS NULL OR CAST(number AS INT) > 3)",
    "kind = 'text' OR (CAST(number AS INT) > 3 AND (number = '7' OR CAST(number AS INT) < 9))",
    "(CAST(number AS INT) > 3 OR kind = 'x') OR (kind = 'text' AND CAST(number AS INT) < 9)",
)


@pytest.mark.parametrize("where", GUARDED)
def test_a_row_fails_in_a_batch_when_and_only_when_it_fails_alone(where: str) -> None:
    kinds, numbers = ("text", "number", None), ("abc", "7", "2", "zzz", None)
    cells = [(kind, number) for kind in kinds for number in numbers] * 8
    rows = pa.table(
        {
            "_partition": pa.array([0] * len(cells), pa.int32()),
            "_offset": pa.array(range(len(cells)), pa.int64()),
            "kind": pa.array([kind for kind, _ in cells], pa.string()),
            "number": pa.array([number for _, number in cells], pa.string()),
        }
    )
    queries = Queries(duckdb.connect())
    row_sql = (
        f"SELECT _rows._partition AS _partition, _rows._offset AS _offset, kind FROM _rows WHERE {where}"
    )
    alone = set()
    for at in range(len(cells)):
        queries.batch(rows.slice(at, 1))
        try:
            queries.table(row_sql)
        except duckdb.Error:
            alone.add(at)
    good, failed = set_aside(queries, row_sql, rows)
    assert {row.offset for row in failed} == alone
    assert len(failed) == len(alone)
    assert good.num_rows == len(cells) - len(alone)


@pytest.mark.parametrize(
    "query",
    [
        "kind FROM _rows WHERE kind = 'number' AND (number IS NULL OR CAST(number AS INT) > 3)",
        "kind FROM _rows WHERE NOT (kind = 'text' OR CAST(number AS INT) < 3)",
        "CAST(number AS INT) AS one, CAST(number AS INT) + 1 AS two FROM _rows",
        "CAST(number AS INT) * CAST(number AS INT) AS square FROM _rows",
        "kind FROM _rows WHERE CAST(number AS INT) + CAST(number AS INT) > 3",
    ],
)
def test_many_rows_that_fail_within_a_condition_or_twice_take_few_statements(
    query: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    count, asked = 5_000, []
    rows = pa.table(
        {
            "_partition": pa.array([0] * count, pa.int32()),
            "_offset": pa.array(range(count), pa.int64()),
            "kind": pa.array(["number"] * count, pa.string()),
            "number": pa.array(["zzz" if n % 2 else "7" for n in range(count)], pa.string()),
        }
    )
    queries = Queries(duckdb.connect())
    table = queries.table
    monkeypatch.setattr(queries, "table", lambda sql: asked.append(sql) or table(sql))
    row_sql = f"SELECT _rows._partition AS _partition, _rows._offset AS _offset, {query}"
    good, failed = set_aside(queries, row_sql, rows)
    assert (good.num_rows, len(failed)) == (count / 2, count / 2)
    assert len(asked) < 200


@pytest.mark.parametrize(
    ("query", "rows"),
    [
        (
            "SELECT sum(TRY(CAST(text AS INT) + 1)) AS a, max(TRY(CAST(text AS INT) + 2)) AS b, "
            "count(*) AS n FROM events",
            [{"a": 6, "b": 5, "n": 3}],
        ),
        (
            "SELECT id, TRY(CAST(text AS INT) + 1) AS a, coalesce(TRY(CAST(text AS INT) + 2), -1) AS b, "
            "list_transform(parts, lambda p: TRY(CAST(text AS INT) + CAST(p AS INT))) AS c FROM events",
            [
                {"id": "e0", "a": 2, "b": 3, "c": [2, 3]},
                {"id": "e1", "a": None, "b": -1, "c": [None, None]},
                {"id": "e2", "a": 4, "b": 5, "c": [4, 5]},
            ],
        ),
        (
            "SELECT e.id AS id FROM events e, UNNEST(e.parts) AS p(part) "
            "WHERE TRY(CAST(part AS INT) + CAST(e.text AS INT)) > 4 "
            "OR TRY(CAST(e.text AS INT) + CAST(part AS INT)) IS NULL",
            [{"id": "e1"}, {"id": "e1"}, {"id": "e2"}],
        ),
    ],
    ids=["groups", "rows", "condition"],
)
def test_a_row_on_which_tries_of_the_query_fail_that_have_something_in_common_is_not_set_aside(
    query: str, rows: list[dict[str, Any]]
) -> None:
    pipeline = hr.Pipeline("tries")
    schema = "id VARCHAR, seen TIMESTAMP NOT NULL, text VARCHAR, parts VARCHAR[]"
    pipeline.stream("events", schema=schema, event_time="seen")
    pipeline.table("t", query)
    with PipelineTest(pipeline) as test:
        records = [event(n, text) for n, text in enumerate(("1", "x", "3"))]
        test.send("events", records, at="2026-03-01T12:01:00Z")
        test.run()
        assert sorted(test.table("t"), key=str) == rows
        (line,) = test.ledger().tables
        assert line.failed == 0
