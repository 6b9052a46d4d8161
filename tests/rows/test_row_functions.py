"""Users' functions in a row stage's database."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from headrace.declare import Pipeline
from headrace.errors import DeclarationError
from headrace.rows.functions import register_functions
from headrace.testing import PipelineTest


def weighted(value: pa.Array, weight: pa.Array, offset: pa.Array) -> pa.Array:
    return pc.add(pc.multiply(value, weight), offset)


def halved(value: pa.Array) -> pa.Array:
    return pc.divide(value, 2.0)


def doubled(value: pa.Array) -> pa.Array:
    import not_a_module_of_anyone

    return not_a_module_of_anyone.doubled(value)


def named(value: pa.Array) -> pa.Array:
    return pa.array([None if each is None or each < 3 else _name(each) for each in value.to_pylist()])


def _name(value: float) -> float:
    from not_a_module_of_anyone.names import name

    return float(name(value))


def moody(value: pa.Array) -> pa.Array:
    if pc.any(pc.greater(value, 3)).as_py():
        raise ValueError("no")
    return value


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


def calling(call: Callable[..., pa.Array], *, derive: str = "", query: str = "") -> Pipeline:
    pipeline = Pipeline("p")
    pipeline.function("f", call, arguments=["DOUBLE"], returns="DOUBLE")
    derived: Any = {"c": derive} if derive else {}
    pipeline.stream("events", schema="a DOUBLE", derive=derived)
    pipeline.table("t", query or "SELECT count(*) AS n FROM events")
    return pipeline


@pytest.mark.parametrize("call", [doubled, named])
@pytest.mark.parametrize(
    "where",
    [
        {"derive": "f(a)"},
        {"derive": "f(4)"},
        {"derive": "TRY(f(a))"},
        {"query": "SELECT max(f(a)) AS n FROM events"},
        {"query": "SELECT f(a) AS k, count(*) AS n FROM events GROUP BY k"},
        {"query": "SELECT count(*) AS n FROM events WHERE TRY(f(a)) IS NULL"},
    ],
)
def test_a_function_that_lacks_a_package_stops_the_run_and_no_record_is_set_aside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: Callable[..., pa.Array], where: dict[str, str]
) -> None:
    pipeline = calling(call, **where)
    with PipelineTest(pipeline, folder=tmp_path / "p") as test:
        test.send("events", [{"a": float(number)} for number in range(5)])
        with pytest.raises(DeclarationError) as raised:
            test.run()
        assert test.store.progress.epoch == 0
        (problem,) = raised.value.problems
        assert problem.file.endswith("test_row_functions.py")
        assert "not_a_module_of_anyone" in Path(__file__).read_text().splitlines()[problem.line - 1]
        assert "function 'f': it cannot be run: ModuleNotFoundError: No module named" in str(problem)
        assert "install what brings 'not_a_module_of_anyone' where the function runs" in str(problem)
    brought, names = ModuleType("not_a_module_of_anyone"), ModuleType("not_a_module_of_anyone.names")
    vars(brought)["doubled"], vars(names)["name"] = (lambda value: value), (lambda value: 1.5)
    monkeypatch.setitem(sys.modules, brought.__name__, brought)
    monkeypatch.setitem(sys.modules, names.__name__, names)
    with PipelineTest(pipeline, folder=tmp_path / "p") as test:
        test.run()
        assert [each.outcomes.get("accepted") for each in test.ledger().lanes if each.lane == "main"] == [5]


def test_a_function_that_raises_for_a_record_sets_that_one_aside() -> None:
    with PipelineTest(calling(moody, derive="f(a)")) as test:
        test.send("events", [{"a": 1.0}, {"a": 5.0}, {"a": 2.0}])
        test.run()
        assert test.table("t") == [{"n": 2}]


def test_a_reader_that_calls_a_function_that_lacks_a_package_stops_no_run(tmp_path: Path) -> None:
    with PipelineTest(calling(doubled), folder=tmp_path / "p") as test:
        reading = test.store.connection.cursor()
        assert reading.execute("SELECT TRY(f(1.0))").fetchall() == [(None,)]
        test.send("events", [{"a": 1.0}])
        test.run()
        assert test.table("t") == [{"n": 1}]
