"""A cell of a result that fails is NULL and counted, and nothing that stands beside it fails with it."""

from __future__ import annotations

from pathlib import Path

import pytest

import headrace as hr
from headrace.testing import PipelineTest

AT = "2026-03-01T12:00:00Z"
SUMMED = "CAST(max(word) AS INT) + CAST(max(word) AS INT)"

RESULTS = [
    (f"SELECT id, {SUMMED} AS a FROM events GROUP BY id", [(0, 2), (1, None), (2, 6)]),
    (
        "SELECT id, CAST(max(word) AS INT) AS a, a + 1 AS b FROM events GROUP BY id",
        [(0, 1, 2), (1, None, None), (2, 3, 4)],
    ),
    (f"SELECT id FROM events GROUP BY id HAVING {SUMMED} > 2", [(2,)]),
    (
        "SELECT id, CAST(max(word) AS INT) AS a FROM events GROUP BY id HAVING a + 1 > 2 AND a + 2 > 0",
        [(2, 3)],
    ),
]


def pipeline_with(**tables: str) -> hr.Pipeline:
    pipeline = hr.Pipeline("cells")
    pipeline.stream(
        "events", schema="id BIGINT NOT NULL, word VARCHAR, seen TIMESTAMP NOT NULL", event_time="seen"
    )
    for name, query in tables.items():
        pipeline.table(name, query)
    return pipeline


def send(test: PipelineTest, *words: str | None, first: int = 0) -> None:
    rows = [{"id": first + number, "word": word, "seen": AT} for number, word in enumerate(words)]
    test.send("events", rows, at=AT)
    test.run()


@pytest.mark.parametrize(("query", "rows"), RESULTS)
def test_what_fails_twice_in_a_row_is_null_and_its_table_stays_readable(
    query: str, rows: list[tuple[int | None, ...]], tmp_path: Path
) -> None:
    with PipelineTest(pipeline_with(t=query), folder=tmp_path) as test:
        send(test, "1", "x", "3")
        assert sorted(tuple(row.values()) for row in test.table("t")) == rows


def test_cells_that_fail_are_counted_by_table_and_column_and_those_that_are_null_are_not() -> None:
    pipeline = pipeline_with(
        cells="SELECT id, CAST(max(word) AS INT) AS a, a * a AS b, 6 + sum(id) AS c FROM events GROUP BY id",
        had=f"SELECT id, {SUMMED} AS a, count(DISTINCT word) + 1 AS n FROM events GROUP BY id "
        "HAVING CAST(min(word) AS INT) <> 3",
        plain="SELECT word, count(*) AS n FROM events GROUP BY word",
        lines="SELECT id, word || '!' AS loud FROM events",
    )
    pipeline.table("seen", "SELECT sum(cells) AS cells FROM failed_cells")
    pipeline.panel("Failed", "SELECT * FROM failed_cells WHERE cells > 0")
    pipeline.alert("failed", "SELECT max(cells) > 0 FROM failed_cells")
    with PipelineTest(pipeline) as test:
        send(test, "1", "x", "3", None, "y")
        found = {
            (row["table_name"], row["column_name"]): row["cells"] for row in test.query("FROM failed_cells")
        }
        assert found == {
            ("cells", "a"): 2, ("cells", "b"): 2, ("cells", "c"): 0,
            ("had", "a"): 0, ("had", "n"): 0, ("had", "HAVING"): 2,
        }  # fmt: skip
        assert test.table("seen") == [{"cells": 6}]
        assert sum(row["a"] is None for row in test.table("cells")) == 3, "one of them is no failure"


def test_a_cell_that_has_a_value_again_is_counted_no_more() -> None:
    query = "SELECT id % 2 AS odd, CAST(max(word) AS INT) AS a FROM events GROUP BY odd"
    with PipelineTest(pipeline_with(t=query)) as test:
        send(test, "1", "!")
        assert test.query("SELECT cells FROM failed_cells") == [{"cells": 1}]
        send(test, "2", "3", first=2)
        assert test.table("t") == [{"odd": 0, "a": 2}, {"odd": 1, "a": 3}]
        assert test.query("SELECT cells FROM failed_cells") == [{"cells": 0}]


def test_the_count_of_failed_cells_does_not_depend_on_where_batches_are_cut(tmp_path: Path) -> None:
    counts = []
    for seed in (None, 1, 2):
        pipeline = pipeline_with(t="SELECT id % 7 AS k, CAST(max(word) AS INT) AS a FROM events GROUP BY k")
        with PipelineTest(pipeline, folder=tmp_path / str(seed), cuts=seed) as test:
            send(test, *("x" if number % 5 == 0 else str(number) for number in range(40)))
            counts.append(test.query("SELECT cells FROM failed_cells"))
    assert counts == [counts[0]] * 3
    assert counts[0][0]["cells"] > 0


def test_a_pipeline_whose_cells_cannot_fail_has_a_count_of_none() -> None:
    with PipelineTest(pipeline_with(t="SELECT id, count(*) AS n FROM events GROUP BY id")) as test:
        send(test, "1")
        assert test.query("FROM failed_cells") == []
