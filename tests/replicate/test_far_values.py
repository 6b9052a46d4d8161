"""Values that files of Parquet cannot hold, or that have no date: set aside or written, as the rest is."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest
from targets import DeltaTarget, ParquetTarget
from test_plain import chunk_of

from headrace.errors import RefusedError
from headrace.replicate.parquet.datafiles import NOWHEN
from headrace.replicate.protocol import REFUSED_MAX, Chunk, Refusal, Task, version_of
from headrace.testing.replica_writes import FIRST

Target = DeltaTarget | ParquetTarget
NOWHERE = f"date={NOWHEN}/hour={NOWHEN}"


@pytest.fixture(params=["parquet", "delta"])
def target(request: pytest.FixtureRequest, tmp_path: Path) -> Target:
    made: dict[str, Callable[[], Target]] = {
        "parquet": lambda: ParquetTarget(tmp_path / "lake"),
        "delta": lambda: DeltaTarget(str(tmp_path / "lake")),
    }
    return made[request.param]()


def written(target: Target, chunk: Chunk, **options: Any) -> list[Refusal]:
    """Write a chunk into an empty target; return what was set aside."""
    return written_more(target, chunk, first=True, **options)


def written_more(target: Target, chunk: Chunk, *, first: bool = False, **options: Any) -> list[Refusal]:
    """As `written`, after what was written before, unless it is the first."""
    aside: list[Refusal] = []
    task = Task(replica="copy", pipeline="tests", tables=(chunk.table,), set_aside=aside.extend)
    writer = target.replica(**options).open(task)
    try:
        if first:
            writer.take(chunk.table.name, None, FIRST)
        writer.write(chunk)
    finally:
        writer.close()
    return aside


def there(target: Target) -> list[int]:
    return sorted(row["n"] for row in target.rows("things"))


def found_in(target: ParquetTarget) -> list[int]:
    """As `there`, whatever the other columns hold, which Python may not."""
    files = f"{target.folder}/things/**/*.parquet"
    with duckdb.connect() as connection:
        rows = connection.execute("SELECT n FROM read_parquet($1) ORDER BY n", [files]).fetchall()
    return [n for (n,) in rows]


@pytest.mark.parametrize("folders", ["", "none"])
@pytest.mark.parametrize(
    ("kind", "cell"), [("TIMESTAMP_S", "'{}'"), ("TIMESTAMP_S[]", "['2026-03-01', '{}']")]
)
def test_an_instant_that_files_cannot_hold_is_set_aside_and_the_other_rows_are_written(
    target: Target, kind: str, cell: str, folders: str
) -> None:
    texts = ("infinity", "2026-03-01 12:00:00", "-infinity", "2026-03-01 12:00:01")
    chunk = chunk_of(("at", kind), values=[*(cell.format(text) for text in texts), "NULL"])
    aside = written(target, chunk, partition_by=folders)
    assert [json.loads(each.key)["n"] for each in aside] == [0, 2]
    assert all("'at'" in each.reason for each in aside)
    assert there(target) == [1, 3, 4]


def test_a_nanosecond_within_a_list_is_set_aside_by_delta(tmp_path: Path) -> None:
    target = DeltaTarget(str(tmp_path / "lake"))
    values = [f"['2026-03-01 12:00:00.{digits}']" for digits in ("123456", "123456789")]
    aside = written(target, chunk_of(("at", "TIMESTAMP_NS[]"), values=values))
    assert [json.loads(each.key)["n"] for each in aside] == [1]
    assert there(target) == [0]


@pytest.mark.parametrize("kind", ["TIMESTAMP", "TIMESTAMP WITH TIME ZONE", "TIMESTAMP_MS", "TIMESTAMP_NS"])
def test_a_row_without_a_date_lies_in_the_folder_of_those(tmp_path: Path, kind: str) -> None:
    target = ParquetTarget(tmp_path / "lake")
    texts = ["infinity", "-infinity", "2026-03-01 12:00:00", "1969-12-31 23:59:59"]
    texts += [] if kind == "TIMESTAMP_NS" else ["10000-01-01", "0044-03-15 (BC)", "9999-12-31 23:59:59"]
    chunk = chunk_of(("at", kind), values=[f"'{text}'" for text in texts])
    assert written(target, chunk) == []
    assert found_in(target) == list(range(len(texts)))
    folders = {
        path.parent.relative_to(target.folder / "things").as_posix()
        for path in (target.folder / "things").rglob("*.parquet")
    }
    dates = {"date=2026-03-01/hour=12", "date=1969-12-31/hour=23"}
    dates |= set() if kind == "TIMESTAMP_NS" else {"date=9999-12-31/hour=23"}
    assert folders == {NOWHERE, *dates}


def test_infinite_dates_are_written_as_they_are(tmp_path: Path) -> None:
    target = ParquetTarget(tmp_path / "lake")
    assert (
        written(target, chunk_of(("day", "DATE"), values=["'infinity'", "'-infinity'", "'2026-03-01'"])) == []
    )
    assert found_in(target) == [0, 1, 2]


def test_the_key_of_a_row_that_was_never_written_is_not_there_to_be_removed(target: Target) -> None:
    chunk = chunk_of(("at", "TIMESTAMP_S"), values=["'2026-03-01'", "'2026-03-02'"])
    shape = replace(chunk.table, key=("at",))
    at = pa.array([2**63 - 1, 1_772_323_200], pa.timestamp("s"))
    gone = pa.table({"at": at, "_version": pa.array([version_of(1, 2)] * 2, pa.int64())})
    chunk = replace(chunk, table=shape, removed=gone, rows=chunk.rows.slice(1))
    written(target, chunk)
    assert there(target) == [1]


def test_very_many_keys_that_were_never_written_are_not_there_to_be_removed(target: Target) -> None:
    days = ["'2026-03-01'", "'2026-03-02'"]
    first, second = (chunk_of(("at", "TIMESTAMP_S"), values=days, epoch=epoch) for epoch in (1, 2))
    shape = replace(first.table, key=("at",))
    at = pa.array([*range(2**63 - 1, 2**63 - 2 - REFUSED_MAX, -1), 1_772_323_200], pa.timestamp("s"))
    gone = pa.table({"at": at, "_version": pa.array([version_of(1, 2)] * len(at), pa.int64())})
    assert written(target, replace(first, table=shape, removed=gone.slice(0, 0))) == []
    assert written_more(target, replace(second, table=shape, rows=second.rows.slice(1), removed=gone)) == []
    assert there(target) == [1]


@pytest.mark.parametrize("text", ["12000-01-01", "infinity", "0044-03-15 (BC)"])
def test_a_row_that_an_older_version_put_by_its_date_is_not_doubled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    target = ParquetTarget(tmp_path / "lake")
    first, second = (chunk_of(("at", "TIMESTAMP"), values=[f"'{text}'"], epoch=epoch) for epoch in (1, 2))
    shape = replace(first.table, key=("at",))
    removed = pa.table({"at": pa.array([], pa.timestamp("us")), "_version": pa.array([], pa.int64())})
    with monkeypatch.context() as patch:

        def by_date(rows: pa.Table, _: str | None) -> list[tuple[str, pa.Table]]:
            return [("date=1977-07-07/hour=7", rows)] if rows.num_rows else []

        patch.setattr("headrace.replicate.parquet.writer.folders_of", by_date)
        written(target, replace(first, table=shape, removed=removed))
    written_more(target, replace(second, table=shape, removed=removed))
    assert found_in(target) == [0]


def test_a_table_with_very_many_such_rows_stops_the_replica(target: Target) -> None:
    chunk = chunk_of(("at", "TIMESTAMP_S"), values=["'infinity'"] * (REFUSED_MAX + 1))
    with pytest.raises(RefusedError, match="'at'") as raised:
        written(target, chunk)
    assert "CAST" in raised.value.fix
