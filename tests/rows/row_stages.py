"""Streams and records for the tests of the row stage, without a planner and without a log."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa

from headrace.declare import Expect, Function, Place, Stream, parse_schema
from headrace.log.protocol import RECORD_SCHEMA
from headrace.rows import RowResult
from headrace.sql.plan import Check, Derived, NamedColumn, StreamPlan

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
EVENTS = (
    "id VARCHAR NOT NULL, at TIMESTAMP NOT NULL, count INT, amount DECIMAL(12,2), ratio DOUBLE, "
    "flag BOOLEAN, items STRUCT(product VARCHAR, quantity INT)[]"
)
PLACE = Place("pipeline.py", 1)


def stream_plan(
    schema: str = EVENTS,
    *,
    event_time: str | None = "at",
    unique: tuple[str, ...] = (),
    derive: Iterable[tuple[str, str, str]] = (),
    expect: Iterable[tuple[str, Expect]] = (),
    functions: tuple[Function, ...] = (),
) -> StreamPlan:
    declared = parse_schema(schema)
    derive, expect = tuple(derive), tuple(expect)
    stream = Stream(
        name="events",
        schema=declared,
        event_time=event_time,
        allowed_lateness=timedelta(minutes=5),
        future_tolerance=timedelta(minutes=1),
        unique=unique,
        key=None,
        derive=tuple((name, sql) for name, sql, _ in derive),
        expect=expect,
        record_time="log",
        place=PLACE,
    )
    columns = [NamedColumn(column.name, column.type.sql) for column in declared.columns]
    columns += [NamedColumn(name, kind) for name, _, kind in derive]
    return StreamPlan(
        stream,
        tuple(Derived(name, sql, kind) for name, sql, kind in derive),
        tuple(Check(name, rule.condition, rule) for name, rule in expect),
        tuple(columns),
        functions,
    )


def records(values: Iterable[bytes | None], *, at: datetime | list[datetime] = NOON) -> pa.Table:
    values = list(values)
    times = at if isinstance(at, list) else [at] * len(values)
    columns = {
        "partition": pa.array([0] * len(values), pa.int32()),
        "offset": pa.array(range(len(values)), pa.int64()),
        "record_time": pa.array(times, pa.timestamp("us", "UTC")),
        "key": pa.array([b"k"] * len(values), pa.binary()),
        "value": pa.array(values, pa.binary()),
        "headers": pa.nulls(len(values), RECORD_SCHEMA.field("headers").type),
    }
    return pa.table(columns).cast(RECORD_SCHEMA)


def told(result: RowResult) -> dict[int, tuple[Any, ...]]:
    """What a result says about each offset: its outcome with reasons, or its row without address."""
    answers: dict[int, tuple[Any, ...]] = {}
    for name, table in (("timely", result.timely), ("late", result.late)):
        for row in table.to_pylist():
            offset = row.pop("_offset")
            assert offset not in answers
            answers[offset] = (name, repr(row))
    for letter in result.dead.to_pylist():
        assert letter["offset"] not in answers
        reasons = [(reason["rule"], reason["detail"]) for reason in letter["reasons"]]
        answers[letter["offset"]] = (letter["outcome"], repr(reasons))
    return answers
