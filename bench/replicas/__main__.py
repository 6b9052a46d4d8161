"""Measure replicas against the bare client of their target, ratio in one run: `python -m bench.replicas`.

Delta: rows in chunks through the replica's writer, against `write_deltalake` of the same chunks. PostgreSQL
(with `--dsn`): into an empty keyed table, and new rows into one that has some, each against a bare `COPY`.
Prints a line for each and writes everything that was measured into `bench/results/`.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow import csv

from headrace.operate.secrets import Secret
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


def as_csv(rows: pa.Table) -> bytes:
    """Return rows as COPY takes them."""
    sink = pa.BufferOutputStream()
    csv.write_csv(rows, sink, csv.WriteOptions(include_header=False))
    return bytes(sink.getvalue())


def through_replica(options: Any, tables: list[pa.Table]) -> float:
    """Return how many seconds the replica's writer took."""
    task = Task(replica="bench", pipeline="bench", tables=(SHAPE,), set_aside=lambda _: None)
    writer = options.open(task)
    seen = writer.cursors().get(SHAPE.name)
    cursor = FIRST if seen is None else replace(seen, generation=seen.generation + 1)
    writer.take(SHAPE.name, seen, cursor)
    began = time.perf_counter()
    for number, rows in enumerate(tables, cursor.position.epoch + 1):
        done = replace(cursor, position=Position.at(number))
        removed = rows.select(["id", "_version"]).slice(0, 0)
        writer.write(Chunk(table=SHAPE, rows=rows, removed=removed, cursor=done))
    seconds = time.perf_counter() - began
    writer.close()
    return seconds


def delta_append(tables: list[pa.Table]) -> Iterator[tuple[str, Callable[[], float]]]:
    """Give both contestants of the Delta case."""
    from deltalake import WriterProperties, write_deltalake

    from headrace.replicate.delta import DeltaReplica

    def bare() -> float:
        with tempfile.TemporaryDirectory() as folder:
            began = time.perf_counter()
            for rows in tables:
                properties = WriterProperties(compression="ZSTD")
                write_deltalake(f"{folder}/bare", rows, mode="append", writer_properties=properties)
            return time.perf_counter() - began

    def ours() -> float:
        with tempfile.TemporaryDirectory() as folder:
            return through_replica(DeltaReplica(kind="delta", path=folder, partition_by="none"), tables)

    yield "bare", bare
    yield "headrace", ours


def postgresql(dsn: str, rows: int, size: int, *, empty: bool) -> Iterator[tuple[str, Callable[[], float]]]:
    """Give both contestants of a PostgreSQL case; unless `empty`, the table has as many other rows before."""
    import psycopg

    from headrace.replicate.postgresql import PostgresReplica

    options = PostgresReplica(kind="postgresql", dsn=Secret(dsn))
    before, tables = chunks(rows, size, rows), chunks(rows, size)

    def prepared() -> None:
        with psycopg.connect(dsn, autocommit=True) as connection:
            for name in (SHAPE.name, "_headrace_cursors"):
                connection.execute(f"DROP TABLE IF EXISTS {name}")
        through_replica(options, [] if empty else before)

    def bare() -> float:
        prepared()
        texts = [as_csv(table) for table in tables]  # made before: what is measured is the server's work
        with psycopg.connect(dsn) as connection, connection.cursor() as cursor:
            began = time.perf_counter()
            for text in texts:
                names = "id, who, seen, amount, _version"
                with cursor.copy(f"COPY {SHAPE.name} ({names}) FROM STDIN (FORMAT csv)") as copy:
                    copy.write(text)
                connection.commit()
            return time.perf_counter() - began

    def ours() -> float:
        prepared()
        return through_replica(options, tables)

    yield "bare", bare
    yield "headrace", ours


def main() -> None:
    """Run the cases, print their ratios, write what was measured."""
    parser = argparse.ArgumentParser(prog="python -m bench.replicas", description=__doc__.splitlines()[0])
    parser.add_argument("--delta-rows", type=int, default=5_000_000)
    parser.add_argument("--rows", type=int, default=1_000_000, help="of the PostgreSQL cases")
    parser.add_argument("--chunk", type=int, default=250_000, help="rows of a chunk")
    parser.add_argument("--dsn", help="an empty PostgreSQL database; without it, only Delta is measured")
    parser.add_argument("--repetitions", type=int, default=3)
    chosen = parser.parse_args()
    cases = {"Delta append": dict(delta_append(chunks(chosen.delta_rows, chosen.chunk)))}
    if chosen.dsn:
        for title, empty in (("PostgreSQL, empty table", True), ("PostgreSQL, upsert of new rows", False)):
            cases[title] = dict(postgresql(chosen.dsn, chosen.rows, chosen.chunk, empty=empty))
    began, load = datetime.now(UTC), os.getloadavg()
    measured: dict[str, dict[str, list[float]]] = {}
    for title, contestants in cases.items():
        measured[title] = {name: [] for name in contestants}
        for _ in range(chosen.repetitions):  # by turns, so that both have the same machine
            for name, run in contestants.items():
                measured[title][name].append(run())
        times = {name: statistics.median(seconds) for name, seconds in measured[title].items()}
        ratio = times["bare"] / times["headrace"]
        print(
            f"{title}: bare {times['bare']:.2f} s, headrace {times['headrace']:.2f} s, {ratio:.2f} x",
            flush=True,
        )
    settings = {name: value for name, value in vars(chosen).items() if name != "dsn"}
    facts = {"began": began.isoformat(), "load_before": load, "settings": settings, "seconds": measured}
    path = Path(__file__).parents[1] / "results" / f"replicas-{began:%Y%m%dT%H%M%SZ}.json"
    path.write_text(json.dumps(facts, indent=2) + "\n")
    print(path)


if __name__ == "__main__":
    main()
