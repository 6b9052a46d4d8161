"""The rows that every case writes, and how they go through a replica's writer."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import pyarrow as pa

from headrace.replicate import Chunk, Cursor, NamedColumn, Position, TableShape, Task
from headrace.replicate.protocol import version_of

SHAPE = TableShape(
    name="bench_rows",
    columns=(
        NamedColumn("id", "BIGINT"),
        NamedColumn("who", "VARCHAR"),
        NamedColumn("seen", "TIMESTAMP WITH TIME ZONE"),
        NamedColumn("amount", "DOUBLE"),
    ),
    key=("id",),
)
FIRST = Cursor(store_id="bench", replica="bench", generation=1, position=Position())
START = 1_767_225_600_000_000


class Unequal(Exception):
    """A contestant did not leave in the target what it should have."""


def chunks(rows: int, size: int, first: int = 0) -> list[pa.Table]:
    """Return rows with `_version`, in chunks of `size`."""
    return [_chunk(at, min(size, first + rows - at)) for at in range(first, first + rows, size)]


def _chunk(at: int, count: int) -> pa.Table:
    numbers = range(at, at + count)
    return pa.table(
        {
            "id": pa.array(numbers, pa.int64()),
            "who": pa.array([f"user_{i * 7919 % 10_007:05d}" for i in numbers]),
            "seen": pa.array([START + i * 1_000 for i in numbers], pa.timestamp("us", "UTC")),
            "amount": pa.array([i % 9_973 / 7 for i in numbers], pa.float64()),
            "_version": pa.array([version_of(1, 1)] * count, pa.int64()),
        }
    )


def through_replica(options: Any, tables: list[pa.Table]) -> float:
    """Return how many seconds the replica's writer took."""
    task = Task(replica="bench", pipeline="bench", tables=(SHAPE,), set_aside=refuse)
    writer = options.open(task)
    try:
        seen = writer.cursors().get(SHAPE.name)
        cursor = FIRST if seen is None else replace(seen, generation=seen.generation + 1)
        writer.take(SHAPE.name, seen, cursor)
        began = time.perf_counter()
        for number, rows in enumerate(tables, cursor.position.epoch + 1):
            done = replace(cursor, position=Position.at(number))
            removed = rows.select(["id", "_version"]).slice(0, 0)
            writer.write(Chunk(table=SHAPE, rows=rows, removed=removed, cursor=done))
        return time.perf_counter() - began
    finally:
        writer.close()


def refuse(refusals: object) -> None:
    """Every row of these cases is good."""
    raise Unequal(f"rows were refused: {refusals}")


def require(found: int, wanted: int, who: str) -> None:
    """Raise Unequal unless the target holds so many rows."""
    if found != wanted:
        raise Unequal(f"{who} left {found:,} rows of {wanted:,}")
