"""Files that executors wrote come into Delta and Parquet targets whole, once, whatever dies in between."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from targets import DeltaTarget, ParquetTarget

from headrace.errors import RefusedError
from headrace.replicate import staged
from headrace.replicate.columns import time_column
from headrace.replicate.folders import sync
from headrace.replicate.parquet.datafiles import NOWHEN
from headrace.replicate.protocol import (
    Chunk,
    Cursor,
    NamedColumn,
    Position,
    Refusal,
    TableShape,
    Task,
    version_of,
)
from headrace.replicate.staged import RowsStage, put_staged, staged_at, take_away
from headrace.store.outside import RowFile
from headrace.testing.replica_writes import FIRST

CLICKS = TableShape(
    name="clicks",
    columns=(
        NamedColumn("seen", "TIMESTAMP WITH TIME ZONE"),
        NamedColumn("n", "BIGINT"),
        NamedColumn("words", "VARCHAR[]"),
        NamedColumn("day", "DATE"),
    ),
    key=(),
)
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
Target = DeltaTarget | ParquetTarget


@pytest.fixture(params=[DeltaTarget, ParquetTarget])
def target(request: pytest.FixtureRequest, tmp_path: Path) -> Target:
    made: Callable[..., Target] = request.param
    return made(str(tmp_path / "lake")) if made is DeltaTarget else made(tmp_path / "lake")


def folder_of(target: Target) -> Path:
    return Path(target.place if isinstance(target, DeltaTarget) else target.folder)


def stage_of(target: Target) -> RowsStage:
    delta = isinstance(target, DeltaTarget)
    stage = RowsStage(
        staged_at(folder_of(target), "clicks", FIRST.store_id),
        CLICKS,
        staged.arrow_schema(CLICKS, signed=delta),
        time_column(CLICKS, ""),
        delta,
    )
    stage.prepare(())
    return stage


def clicks(*numbers: int, hours: int = 0) -> pa.Table:
    return pa.table(
        {
            "seen": pa.array([NOON + timedelta(hours=hours)] * len(numbers), pa.timestamp("us", "UTC")),
            "n": pa.array(numbers, pa.int64()),
            "words": pa.array([["a", None]] * len(numbers), pa.list_(pa.string())),
            "day": pa.array([NOON.date()] * len(numbers), pa.date32()),
            "_offset": pa.array(numbers, pa.int64()),
        }
    )


def chunk_of(*files: RowFile, cursor: Cursor = FIRST) -> Chunk:
    empty = staged.arrow_schema(CLICKS, signed=True).empty_table()
    at = Position.at(max(file.epoch for file in files))
    gone = empty.select(["_version"])
    return Chunk(table=CLICKS, rows=empty, removed=gone, cursor=replace(cursor, position=at), files=files)


def task(kept: list[Refusal]) -> Task:
    return Task(
        replica="copy", pipeline="tests", tables=(CLICKS,), set_aside=kept.extend, store_id=FIRST.store_id
    )


def write(target: Target, *chunks: Chunk, kept: list[Refusal] | None = None) -> None:
    """Write chunks by a writer of their own, as a follower that begins does."""
    writer = target.replica().open(task([] if kept is None else kept))
    try:
        if not writer.cursors():
            writer.take("clicks", None, FIRST)
        for each in chunks:
            writer.write(each)
    finally:
        writer.close()


def numbers(target: Target) -> list[int]:
    return sorted(row["n"] for row in target.rows("clicks"))


def test_files_of_several_hours_become_the_table_and_are_not_staged_any_more(target: Target) -> None:
    stage = stage_of(target)
    never = clicks(4).set_column(0, "seen", pa.nulls(1, pa.timestamp("us", "UTC")))
    files = stage.write(pa.concat_tables([clicks(1, 2), clicks(3, hours=1), never]), 7)
    stage.require(files)
    assert sorted(file.rows for file in files) == [1, 1, 2]
    write(target, chunk_of(*files))
    assert numbers(target) == [1, 2, 3, 4]
    found = target.rows("clicks")
    assert {row["_version"] for row in found} == {version_of(1, 7)}
    assert all(row["words"] == ["a", None] and row["day"] == NOON.date() for row in found)
    assert {row["seen"] for row in found} == {NOON, NOON + timedelta(hours=1), None}
    assert list(stage.place.iterdir()) == []


def test_the_same_chunk_again_is_nothing_new_though_its_files_are_gone(target: Target) -> None:
    stage = stage_of(target)
    first = chunk_of(*stage.write(clicks(1, 2), 1))
    write(target, first, first)
    write(target, first)
    assert numbers(target) == [1, 2]
    write(target, chunk_of(*stage.write(clicks(3), 2)))
    assert numbers(target) == [1, 2, 3]


def test_small_files_of_executors_are_put_together_like_others(target: Target) -> None:
    stage = stage_of(target)
    chunks = [chunk_of(*stage.write(clicks(2 * epoch, 2 * epoch + 1), epoch)) for epoch in range(1, 36)]
    write(target, *chunks)
    assert numbers(target) == [*range(2, 72)]
    files = [*(folder_of(target) / "clicks").rglob("*.parquet")]
    if isinstance(target, DeltaTarget):
        assert len(target.table("clicks").file_uris()) < 10
    else:
        assert len(files) < 20
    assert {row["_version"] for row in target.rows("clicks")} == {version_of(1, n) for n in range(1, 36)}


class Died(Exception):
    """The process is gone."""


def test_a_driver_that_dies_before_or_after_the_target_s_commit_loses_and_doubles_nothing(
    target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage, module = stage_of(target), sys.modules[type(target.replica().open(task([]))).__module__]
    sent = chunk_of(*stage.write(clicks(1, 2), 1), *stage.write(clicks(3, hours=1), 1))
    write(target)
    passed: list[Path] = []

    def linked(staged: Path, place: Path, size: int) -> None:
        put_staged(staged, place, size)
        passed.append(place)
        if len(passed) == 2:
            raise Died

    def let_go(files: Iterable[Path]) -> None:
        raise Died

    for name, dies in (("put_staged", linked), ("take_away", let_go)):
        with monkeypatch.context() as patched:
            patched.setattr(module, name, dies)
            with pytest.raises(Died):
                write(target, sent)
        assert numbers(target) == ([] if name == "put_staged" else [1, 2, 3])
        assert len(list(stage.place.iterdir())) == 2
    writer = target.replica().open(task([]))
    seen = writer.cursors()["clicks"]
    assert seen == sent.cursor
    writer.take("clicks", seen, replace(seen, generation=2))
    writer.close()
    assert list(stage.place.iterdir()) == []
    assert numbers(target) == [1, 2, 3]


def test_a_writer_that_was_replaced_brings_in_no_files(target: Target) -> None:
    stage = stage_of(target)
    old, new = (target.replica().open(task([])) for _ in range(2))
    old.take("clicks", None, FIRST)
    new.take("clicks", FIRST, replace(FIRST, generation=2))
    files = stage.write(clicks(1), 1)
    with pytest.raises(RefusedError, match="taken over"):
        old.write(chunk_of(*files))
    assert numbers(target) == []
    new.write(chunk_of(*files, cursor=replace(FIRST, generation=2)))
    assert numbers(target) == [1]


def test_a_delta_writer_that_is_replaced_while_it_commits_is_refused_by_the_protocol(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = DeltaTarget(str(tmp_path / "lake"))
    stage = stage_of(target)
    old, new = (target.replica().open(task([])) for _ in range(2))
    old.take("clicks", None, FIRST)
    files = stage.write(clicks(1), 1)

    def taken_meanwhile(staged: Path, place: Path, size: int) -> None:
        put_staged(staged, place, size)
        new.take("clicks", FIRST, replace(FIRST, generation=2))

    with monkeypatch.context() as patched:
        patched.setattr("headrace.replicate.delta.writer.put_staged", taken_meanwhile)
        with pytest.raises(RefusedError, match="taken over"):
            old.write(chunk_of(*files))
    assert numbers(target) == []
    new.write(chunk_of(*files, cursor=replace(FIRST, generation=2)))
    assert numbers(target) == [1]


def test_a_staged_file_that_somebody_took_away_stops_the_replica(target: Target) -> None:
    stage = stage_of(target)
    (file,) = stage.write(clicks(1), 1)
    (stage.place / file.name).unlink()
    with pytest.raises(RefusedError, match="nowhere else"):
        write(target, chunk_of(file))
    assert numbers(target) == []


def test_rows_that_delta_cannot_hold_are_set_aside_and_the_others_written(tmp_path: Path) -> None:
    target = DeltaTarget(str(tmp_path / "lake"))
    stage, kept = stage_of(target), list[Refusal]()
    far = pa.array([2_932_897], pa.int32()).cast(pa.date32())
    odd = clicks(9).set_column(3, "day", far)
    only = stage.write(odd, 1)
    both = stage.write(pa.concat_tables([clicks(1), odd]), 2)
    assert [file.rows for file in only + both] == [0, 0, 1]
    write(target, chunk_of(*only), chunk_of(*both), kept=kept)
    assert numbers(target) == [1]
    assert [each.version for each in kept] == [version_of(1, 1), version_of(1, 2)]
    assert all("'day'" in each.reason for each in kept)


def stage_for(target: Target, column: str) -> RowsStage:
    """Return the stage of a table with a column 'at' and without folders."""
    shape = TableShape(name="clicks", columns=(NamedColumn("at", column),), key=())
    delta = isinstance(target, DeltaTarget)
    schema = staged.arrow_schema(shape, signed=delta)
    return replace(stage_of(target), shape=shape, schema=schema, partition=None)


def test_a_row_with_a_value_that_the_files_cannot_hold_is_set_aside_alone(target: Target) -> None:
    infinite = 2**63 - 1
    seconds = [*range(20), infinite, *range(20, 30), infinite]
    lists = pa.array([[each, 1] for each in seconds], pa.list_(pa.timestamp("s")))
    plain = pa.array(seconds, pa.timestamp("s"))
    for column, values in (("TIMESTAMP_S", plain), ("TIMESTAMP_S[]", lists)):
        stage = stage_for(target, column)
        odd, file = stage.write(pa.table({"at": values}), 1)
        assert file.rows == 30
        assert [odd.rows, len(odd.refused)] == [0, 2]
        assert all("'at'" in reason and str(infinite) not in reason for _, reason in odd.refused)
        assert pq.ParquetFile(stage.place / file.name).metadata.num_rows == 30


def test_a_type_that_no_file_can_hold_stops_the_run_and_the_table_needs_another_name(target: Target) -> None:
    stage = stage_for(target, "INTERVAL[]")
    spans = pa.array([[pa.MonthDayNano([0, 77, 0])]], pa.list_(pa.month_day_nano_interval()))
    with pytest.raises(RefusedError, match="cannot hold one of its values") as raised:
        stage.write(pa.table({"at": spans}), 1)
    assert "another name" in raised.value.fix
    assert "77" not in f"{raised.value} {raised.value.__cause__}"
    assert list(stage.place.iterdir()) == []


def test_rows_set_aside_count_together_whichever_tasks_they_were_in(target: Target) -> None:
    stage = stage_for(target, "TIMESTAMP_S")
    few = pa.table({"at": pa.array([2**63 - 1] * 600, pa.timestamp("s"))})
    parts = [stage.write(few, 1) for _ in range(2)]
    stage.require(parts[0])
    many = pa.concat_tables([few, few])
    for attempt in (lambda: stage.require([*parts[0], *parts[1]]), lambda: stage.write(many, 1)):
        with pytest.raises(RefusedError, match="rows of one epoch: 'at'") as raised:
            attempt()
        assert "another name" in raised.value.fix


def test_a_row_whose_instant_has_no_date_goes_into_the_folder_of_those_without(tmp_path: Path) -> None:
    stage = replace(stage_for(ParquetTarget(tmp_path / "lake"), "TIMESTAMP_MS"), partition="at")
    never = pa.array([0, 2**63 - 1, -(2**63 - 1), None], pa.timestamp("ms"))
    files = stage.write(pa.table({"at": never}), 1)
    assert {file.folder: file.rows for file in files} == {
        "date=1970-01-01/hour=0": 1,
        f"date={NOWHEN}/hour={NOWHEN}": 3,
    }


def test_nobody_is_told_to_move_such_a_table_away_to_have_it_filled_again(target: Target) -> None:
    write(target, chunk_of(*stage_of(target).write(clicks(1), 1)))
    other = replace(CLICKS, columns=(NamedColumn("n", "VARCHAR"),))
    with pytest.raises(RefusedError) as raised:
        target.replica().open(replace(task([]), tables=(other,)))
    assert "another name" in raised.value.fix
    assert "move" not in raised.value.fix
    if isinstance(target, ParquetTarget):
        file = next((folder_of(target) / "clicks").rglob("*.parquet"))
        file.rename(file.with_name("odd.parquet"))
        with pytest.raises(RefusedError, match="somebody else has changed") as raised:
            write(target, chunk_of(*stage_of(target).write(clicks(2), 2)))
        assert "another name" in raised.value.fix
        assert "move" not in raised.value.fix


def test_a_folder_that_executors_do_not_share_with_the_driver_stops_the_run(target: Target) -> None:
    stage = stage_of(target)
    files = stage.write(clicks(1), 1)
    stage.require(files)
    (stage.place / files[0].name).write_bytes(b"half")
    with pytest.raises(RefusedError, match="same folder"):
        stage.require(files)
    stage.prepare(())
    stage.place.rmdir()
    with pytest.raises(RefusedError, match="same folder"):
        stage.write(clicks(1), 1)


def test_what_no_epoch_names_is_taken_away_and_what_one_names_stays(target: Target) -> None:
    stage = stage_of(target)
    (listed,), (left,) = stage.write(clicks(1), 1), stage.write(clicks(1), 1)
    stage.prepare({listed.name})
    assert [file.name for file in stage.place.iterdir()] == [listed.name]
    assert left.name != listed.name


def left_by_a_crash(target: Target, *chunks: Chunk) -> None:
    """Write chunks, and let their files be staged afterwards, as when the process died before it let go."""
    waiting = stage_of_files(target, chunks)
    write(target, *chunks)
    for path, copy in waiting.items():
        copy.rename(path)


def stage_of_files(target: Target, chunks: Iterable[Chunk]) -> dict[Path, Path]:
    found = {}
    for chunk in chunks:
        for file in chunk.files:
            path = staged_at(folder_of(target), "clicks", FIRST.store_id) / file.name
            found[path] = folder_of(target) / f"kept {file.name}"
            found[path].hardlink_to(path)
    return found


def test_only_staged_files_whose_rows_the_target_has_are_let_go(target: Target) -> None:
    stage = stage_of(target)
    (other,), (first,), (last,) = (stage.write(clicks(number), number) for number in (1, 2, 3))
    left_by_a_crash(target, chunk_of(first), chunk_of(last))
    assert {file.name for file in stage.place.iterdir()} == {other.name, first.name, last.name}
    writer = target.replica().open(task([]))
    seen = writer.cursors()["clicks"]
    with pytest.raises(RefusedError, match="taken over"):
        writer.take("clicks", replace(seen, generation=9), replace(seen, generation=10))
    assert len(list(stage.place.iterdir())) == 3
    writer.close()
    writer = target.replica().open(task([]))
    writer.take("clicks", seen, replace(seen, generation=2))
    writer.close()
    assert [file.name for file in stage.place.iterdir()] == [other.name]
    assert numbers(target) == [2, 3]


def test_rows_whose_commit_a_power_cut_took_back_are_brought_in_though_nothing_is_staged(
    tmp_path: Path,
) -> None:
    target = DeltaTarget(str(tmp_path / "lake"))
    stage, log = stage_of(target), tmp_path / "lake" / "clicks" / "_delta_log"
    write(target, chunk_of(*stage.write(clicks(1), 1)))
    before, sent = {*log.iterdir()}, chunk_of(*stage.write(clicks(2), 2))
    write(target, sent)
    for commit in {*log.iterdir()} - before:
        commit.unlink()
    assert numbers(target) == [1]
    write(target, sent)
    assert numbers(target) == [1, 2]


def test_a_delta_commit_is_durable_before_the_staged_files_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target, durable = DeltaTarget(str(tmp_path / "lake")), set[Path]()
    stage, log = stage_of(target), tmp_path / "lake" / "clicks" / "_delta_log"

    def noted(path: Path) -> None:
        sync(path)
        durable.add(path)

    def let_go(files: Iterable[Path]) -> None:
        assert {*log.glob("*.json"), log, log.parent} <= durable
        take_away(files)

    monkeypatch.setattr("headrace.replicate.delta.writer.sync", noted)
    monkeypatch.setattr("headrace.replicate.delta.writer.take_away", let_go)
    write(target, *(chunk_of(*stage.write(clicks(number), number)) for number in range(1, 4)))
    assert numbers(target) == [1, 2, 3]
    assert list(stage.place.iterdir()) == []


def test_a_file_that_is_in_its_place_already_is_made_durable_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    durable, one, place = list[Path](), tmp_path / "one", tmp_path / "table" / "one"
    one.write_bytes(b"rows")
    put_staged(one, place, 4)
    monkeypatch.setattr(staged, "sync", durable.append)
    put_staged(one, place, 4)
    one.unlink()
    put_staged(one, place, 4)
    assert durable == [place.parent] * 2
    place.write_bytes(b"half a file")
    with pytest.raises(RefusedError, match="nowhere else"):
        put_staged(one, place, 4)
