"""Users' functions on executors, apart from Spark: one that cannot import what it needs stops the run."""

from __future__ import annotations

import pickle
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest

import headrace as hr
from headrace.engine.local import EngineSettings
from headrace.engine.spark import SparkSettings
from headrace.engine.spark.computing import Orders, compute
from headrace.engine.spark.gathering import raise_met
from headrace.engine.spark.task import Task, pickled
from headrace.engine.spark.wire import packed
from headrace.errors import DeclarationError
from headrace.rows import RowStage
from headrace.sql import plan_pipeline
from headrace.store.progress import TableProgress
from rows.row_stages import records

LACKS = r"test_spark_functions\.py:\d+: function 'f': it cannot be run: ModuleNotFoundError: No module named"


def lacking(value: pa.Array) -> pa.Array:
    import not_a_module_of_anyone

    return not_a_module_of_anyone.mended(value)


def task_of(query: str, **stream: Any) -> Task:
    pipeline = hr.Pipeline("p")
    pipeline.function("f", lacking, arguments=["DOUBLE"], returns="DOUBLE")
    pipeline.stream("events", schema="a DOUBLE", **stream)
    pipeline.table("t", query)
    return Task("run", plan_pipeline(pipeline), {}, {}, EngineSettings(), SparkSettings(), "")


def there(task: Task) -> Any:
    """Return the task as an executor has it."""
    return pickle.loads(pickled(task, task.plan))


def test_the_row_stage_of_an_executor_stops_at_a_function_that_lacks_a_package() -> None:
    task = there(task_of("SELECT max(c) AS n FROM events", derive={"c": "f(a)"}))
    with pytest.raises(DeclarationError, match=LACKS) as raised:
        RowStage(task.plan.streams["events"]).run(records([b'{"a": 1.5}']))
    assert str(pickle.loads(pickle.dumps(raised.value))) == str(raised.value)


def test_the_tables_of_an_executor_stop_at_a_function_that_lacks_a_package() -> None:
    task = task_of("SELECT max(f(a)) AS n FROM events")
    timely = RowStage(task.plan.streams["events"]).run(records([b'{"a": 1.5}', b'{"a": 2.5}'])).timely
    sent: Any = SimpleNamespace(value=pickled(task, task.plan))
    work = compute(
        sent, SimpleNamespace(value={}), Orders({"t": TableProgress("")}, {}, {"events/main": ("t",)}, 0, 1)
    )  # type: ignore[arg-type]
    rows: Any = [{"place": "events/main", "rows": packed(timely)}]
    found = [data for _, _, data in work(rows)]
    with pytest.raises(DeclarationError, match=LACKS):
        raise_met(found)
