"""Users' functions in a row stage's database."""

from __future__ import annotations

from collections.abc import Callable

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from headrace.declare import Pipeline
from headrace.rows.functions import register_functions
from headrace.testing import PipelineTest


def weighted(value: pa.Array, weight: pa.Array, offset: pa.Array) -> pa.Array:
    return pc.add(pc.multiply(value, weight), offset)


def halved(value: pa.Array) -> pa.Array:
    return pc.divide(value, 2.0)


@pytest.mark.parametrize(
    ("call", "arguments", "query", "given"),
    [
        (halved, ["DOUBLE"], "f(i)", [0.0, 0.5, 1.0]),
        (weighted, ["DOUBLE", "DOUBLE", "DOUBLE"], "f(i, 10, 1)", [1.0, 11.0, 21.0]),
        (weighted, ["DOUBLE", "DOUBLE", "DOUBLE"], "f(i, NULL, 1)", [None, None, None]),
    ],
)
def test_a_function_takes_as_many_columns_as_it_declares(
    call: Callable[..., pa.Array], arguments: list[str], query: str, given: list[float | None]
) -> None:
    pipeline = Pipeline("p")
    pipeline.function("f", call, arguments=arguments, returns="DOUBLE")
    with duckdb.connect() as connection:
        register_functions(connection, pipeline.functions)
        found = connection.sql(f"SELECT {query} AS n FROM range(3) AS t(i)").to_arrow_table()
    assert found["n"].to_pylist() == given


def test_a_query_may_call_a_function_of_several_columns() -> None:
    pipeline = Pipeline("p")
    pipeline.function("weighted", weighted, arguments=["DOUBLE", "DOUBLE", "DOUBLE"], returns="DOUBLE")
    pipeline.stream("events", schema="a DOUBLE, b DOUBLE", derive={"c": "weighted(a, b, 1)"})
    pipeline.table("sums", "SELECT sum(weighted(a, c, 2)) AS n FROM events")
    with PipelineTest(pipeline) as test:
        test.send("events", [{"a": 2.0, "b": 3.0}, {"a": 1.0, "b": 1.0}])
        test.run()
        assert test.table("sums") == [{"n": 20.0}]
