"""Rows of Delta tables that are odd: there before the replica, NaN, or of no year that Delta knows."""

from __future__ import annotations

import struct
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import duckdb
import pyarrow as pa
import pytest
from deltalake import write_deltalake
from targets import DeltaTarget

from headrace.replicate.protocol import NamedColumn, Position, Refusal, TableShape, Task, version_of
from headrace.testing.replica_writes import FIRST, chunk, gone, opened, thing

PEOPLE = TableShape(
    name="people", columns=(NamedColumn("who", "VARCHAR"), NamedColumn("n", "BIGINT")), key=("who",)
)


@pytest.fixture
def target(tmp_path: Path) -> DeltaTarget:
    return DeltaTarget(str(tmp_path / "lake"))


def numbers(target: DeltaTarget) -> dict[str, int]:
    return {row["who"]: row["n"] for row in target.rows(PEOPLE.name)}


def test_rows_that_were_there_before_the_replica_are_replaced_removed_and_swept(target: DeltaTarget) -> None:
    theirs = pa.table({"who": ["ann", "bob", "eve"], "n": pa.array([999] * 3, pa.int64())})
    write_deltalake(f"{target.place}/people", theirs)
    with opened(target, PEOPLE) as writer:
        writer.take("people", None, FIRST)
        writer.write(chunk([thing("ann", 1)], [gone("bob", epoch=1)], epoch=1, shape=PEOPLE))
    assert numbers(target) == {"ann": 1, "eve": 999}
    swept = replace(FIRST, generation=2, sweep_below=version_of(2, 0))
    with opened(target, PEOPLE) as writer:
        writer.take("people", replace(FIRST, position=Position.at(1)), swept)
        done, below = replace(swept, sweep_below=0), swept.sweep_below
        again = [thing("ann", 1, generation=2)]
        writer.write(chunk(again, epoch=1, cursor=done, sweep_below=below, shape=PEOPLE))
    assert numbers(target) == {"ann": 1}


def test_a_key_that_is_nan_goes_and_comes_again_with_whatever_bits(target: DeltaTarget) -> None:
    shape = TableShape(name="ratios", columns=(NamedColumn("ratio", "DOUBLE"),), key=("ratio",))
    # What 0.0 / 0.0 gives, and what is read back from JSON: the bits of their signs differ.
    divided, read = (struct.unpack("<d", struct.pack("<Q", bits << 48))[0] for bits in (0xFFF8, 0x7FF8))

    def keys(ratio: float, epoch: int) -> pa.Table:
        return pa.table(
            {"ratio": [ratio, None], "_version": pa.array([version_of(1, epoch)] * 2, pa.int64())}
        )

    sent, nothing = replace(chunk(), table=shape), keys(read, 1).slice(0, 0)
    with opened(target, shape) as writer:
        writer.take("ratios", None, FIRST)
        for epoch, rows, removed, left in (
            (1, keys(divided, 1), nothing, 2),
            (2, keys(divided, 2), keys(read, 2), 2),
            (3, nothing, keys(read, 3), 0),
        ):
            done = replace(FIRST, position=Position.at(epoch))
            writer.write(replace(sent, rows=rows, removed=removed, cursor=done))
            assert len(target.rows("ratios")) == left


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        ("TIMESTAMP WITH TIME ZONE", ("infinity", "10000-01-01", "0001-12-31 (BC)")),
        ("DATE", ("-infinity", "290000-01-01")),
        ("TIMESTAMP_MS", ("infinity",)),
    ],
)
def test_an_instant_that_delta_cannot_hold_sets_its_row_aside(
    target: DeltaTarget, kind: str, values: tuple[str, ...]
) -> None:
    shape = TableShape(name="ends", columns=(NamedColumn("k", "BIGINT"), NamedColumn("at", kind)), key=("k",))
    given = ["9999-12-31", "0001-01-01", *values]
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        cells = ", ".join(f"({k}::BIGINT, '{value}'::{kind}, 5::BIGINT)" for k, value in enumerate(given))
        rows = connection.sql(f'SELECT * FROM (VALUES {cells}) r(k, "at", _version)').to_arrow_table()
    refused: list[Refusal] = []
    task = Task(replica="copy", pipeline="tests", tables=(shape,), set_aside=refused.extend)
    writer = target.replica().open(task)
    writer.take("ends", None, FIRST)
    writer.write(replace(chunk(), table=shape, rows=rows, removed=rows.select(["k", "_version"]).slice(0, 0)))
    writer.close()
    assert sorted(row["k"] for row in target.rows("ends")) == [0, 1]
    assert [each.key for each in refused] == [f'{{"k": {2 + i}}}' for i in range(len(values))]
    assert "'at'" in refused[0].reason


def test_a_row_with_nanoseconds_is_set_aside_and_the_others_are_written(target: DeltaTarget) -> None:
    columns = (NamedColumn("k", "BIGINT"), NamedColumn("at", "TIMESTAMP_NS"))
    shape = TableShape(name="exact", columns=columns, key=("k",))
    at = pa.array([1_234_567, 1_234_000, None, -1, -1000], pa.timestamp("ns"))
    versions = pa.array([version_of(1, 1)] * 5, pa.int64())
    rows = pa.table({"k": pa.array(range(5), pa.int64()), "at": at, "_version": versions})
    refused: list[Refusal] = []
    task = Task(replica="copy", pipeline="tests", tables=(shape,), set_aside=refused.extend)
    writer = target.replica().open(task)
    writer.take("exact", None, FIRST)
    writer.write(replace(chunk(), table=shape, rows=rows, removed=rows.select(["k", "_version"]).slice(0, 0)))
    writer.close()
    assert sorted(row["k"] for row in target.rows("exact")) == [1, 2, 4]
    assert [(each.key, each.reason) for each in refused] == [
        (f'{{"k": {k}}}', "'at' has nanoseconds, and Delta keeps microseconds") for k in (0, 3)
    ]


def test_a_key_beyond_the_years_of_python_is_replaced_and_removed(target: DeltaTarget) -> None:
    shape = TableShape(name="ends", columns=(NamedColumn("at", "TIMESTAMP"),), key=("at",))
    ends = pa.array([2**63 - 1, 300_000_000_000_000_000], pa.timestamp("us"))
    rows = pa.table({"at": ends, "_version": pa.array([version_of(1, 1)] * 2, pa.int64())})
    sent = replace(chunk(), table=shape, rows=rows, removed=rows.slice(0, 0))
    with opened(target, shape, partition_by="none") as writer:
        writer.take("ends", None, FIRST)
        writer.write(sent)
        writer.write(replace(sent, rows=rows.slice(0, 1), removed=rows, cursor=chunk(epoch=2).cursor))
        assert target.table("ends").to_pyarrow_table().column("at").cast(pa.int64()).to_pylist() == [
            2**63 - 1
        ]


def test_a_list_of_instants_makes_no_folders(target: DeltaTarget) -> None:
    shape = TableShape(name="lists", columns=(NamedColumn("at", "TIMESTAMP[]"),), key=())
    noon = datetime.fromisoformat("2026-03-01T12:00:00")
    rows = pa.table({"at": [[noon]], "_version": pa.array([5], pa.int64())})
    with opened(target, shape) as writer:
        writer.take("lists", None, FIRST)
        writer.write(replace(chunk(), table=shape, rows=rows, removed=rows.slice(0, 0)))
    assert [row["at"] for row in target.rows("lists")] == [[noon]]
