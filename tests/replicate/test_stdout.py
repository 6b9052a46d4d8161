"""The standard output: what of a replica's rules a stream can keep that nobody can ask or take over."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from json_targets import typed_row

from headrace.errors import RefusedError
from headrace.replicate.protocol import NamedColumn, Position, version_of, write_chunks
from headrace.replicate.shapes import shape_of
from headrace.replicate.stdout import StdoutReplica
from headrace.sql import plan_pipeline
from headrace.testing.pipeline_test import PipelineTest
from headrace.testing.replica_runs import catch_up, feed, following, shop
from headrace.testing.replica_writes import (
    FIRST,
    OTHERS,
    THINGS,
    WriterConformance,
    chunk,
    gone,
    opened,
    thing,
)
from headrace.testing.replicas import START, same
from servers.disks import full_disk, small_disk

pytestmark = pytest.mark.slow


class StdoutTarget:
    """What was printed, read line by line as `jq` would."""

    def __init__(self, captured: pytest.CaptureFixture[str]) -> None:
        self._captured = captured
        self._printed = ""

    def begin(self) -> None:
        """Forget what was printed: another run prints all of it again."""
        self._captured.readouterr()
        self._printed = ""

    def replica(self, **options: Any) -> StdoutReplica:
        return StdoutReplica(**{"kind": "stdout", **options})

    def rows(self, table: str) -> list[dict[str, Any]]:
        self._printed += self._captured.readouterr().out
        lines = [json.loads(line) for line in self._printed.splitlines()]
        return [typed_row(table, row) for row in held([one for one in lines if one["table"] == table], table)]


def held(changes: list[dict[str, Any]], table: str) -> list[dict[str, Any]]:
    """What is left when every change has come, in order."""
    rows: dict[Any, tuple[int, dict[str, Any]]] = {}
    for number, change in enumerate(changes):
        if change["op"] == "sweep":
            swept = range(change.get("from", 0), change["below"])
            rows = {known: row for known, row in rows.items() if row[0] not in swept}
            continue
        row = change.get("row", change.get("key"))
        known = json.dumps([row.get(name) for name in key_of(table)]) if key_of(table) else number
        if known in rows and rows[known][0] > change["version"]:
            continue
        rows.pop(known, None)
        if change["op"] == "put":
            rows[known] = (change["version"], row)
    return [row for _, row in rows.values()]


@cache
def key_of(table: str) -> tuple[str, ...]:
    plans = {plan.name: plan for plan in plan_pipeline(shop()).tables}
    if table in plans:
        return shape_of(plans[table], StdoutReplica(kind="stdout")).key
    return THINGS.key if table in (THINGS.name, OTHERS.name) else ()


@pytest.fixture
def target(capsys: pytest.CaptureFixture[str]) -> StdoutTarget:
    return StdoutTarget(capsys)


class TestStdoutWriter(WriterConformance):
    """The rules within one run: another one cannot learn what was printed, nor be kept from printing.

    Where a rule has two writers there is one here, and it takes the table twice.
    """

    def test_rows_and_cursor_are_there_after_a_write(self, target: Any) -> None:
        with opened(target) as writer:
            assert writer.cursors() == {}
            writer.take(THINGS.name, None, FIRST)
            writer.write(chunk([thing("ann", 1, 'it\'s "ok"\n\\N\tü'), thing(None, -2)], epoch=1))
            assert writer.cursors()[THINGS.name].position == Position.at(1)
        assert self.notes(target) == {"ann": 'it\'s "ok"\n\\N\tü', None: ""}
        with opened(target) as writer:
            assert writer.cursors() == {}, "it would go on where nobody knows what was printed"

    def test_a_writer_of_an_older_generation_is_refused(self, target: Any) -> None:
        newer = replace(FIRST, generation=2)
        with opened(target) as writer:
            writer.take(THINGS.name, None, FIRST)
            writer.write(chunk([thing("ann", 1, "old")], epoch=1))
            writer.take(THINGS.name, replace(FIRST, position=Position.at(1)), newer)
            with pytest.raises(RefusedError, match="taken over"):
                writer.write(chunk([thing("ann", 2, "zombie", epoch=9)], epoch=9))
            writer.write(chunk([thing("ann", 3, "new", epoch=2, generation=2)], epoch=2, cursor=newer))
        assert self.notes(target) == {"ann": "new"}

    def test_of_two_that_take_a_table_at_once_one_is_refused(self, target: Any) -> None:
        with opened(target) as writer:
            writer.take(THINGS.name, None, FIRST)
            for seen in (None, replace(FIRST, generation=2)):
                with pytest.raises(RefusedError, match="taken over"):
                    writer.take(THINGS.name, seen, replace(FIRST, generation=3))
            assert writer.cursors() == {THINGS.name: FIRST}

    def test_a_sweep_spares_what_was_there_before_the_target_was_adopted(self, target: Any) -> None:
        before = [thing("ann", 1), thing("bob", 2), thing(None, 3)]
        adopted = replace(FIRST, generation=2, kept_below=version_of(2, 0))
        with opened(target) as writer:
            writer.take(THINGS.name, None, FIRST)
            writer.write(chunk(before, epoch=9))
            writer.take(THINGS.name, replace(FIRST, position=Position.at(9)), adopted)
            for epoch, rows in ((2, ("bob", "cyd")), (3, ("bob",))):
                ours = [thing(who, epoch, "ours", epoch=epoch, generation=2) for who in rows]
                writer.write(chunk(ours, epoch=epoch, cursor=adopted, sweep_below=version_of(2, epoch)))
        assert self.notes(target) == {"ann": "", None: "", "bob": "ours"}

    def test_chunks_of_two_tables_are_there_each_with_its_cursor(self, target: Any) -> None:
        first = chunk([thing("ann", 1, "here")], epoch=1)
        with opened(target, THINGS, OTHERS) as writer:
            for shape in (THINGS, OTHERS):
                writer.take(shape.name, None, FIRST)
            there = [thing("ann", 2, "there", epoch=2), thing("bob", 2, "there", epoch=2)]
            write_chunks(writer, [first, chunk(there, epoch=2, shape=OTHERS)])
            write_chunks(writer, [first, chunk([], [gone("bob", epoch=3)], epoch=3, shape=OTHERS)])
            at = {table: cursor.position for table, cursor in writer.cursors().items()}
        assert at == {THINGS.name: Position.at(1), OTHERS.name: Position.at(3)}
        assert self.notes(target) == {"ann": "here"}
        assert self.notes(target, OTHERS.name) == {"ann": "there"}

    def test_a_writer_that_was_replaced_in_one_table_writes_that_one_no_more_in_whatever_company(
        self, target: Any
    ) -> None:
        newer = replace(FIRST, generation=2)
        with opened(target, THINGS, OTHERS) as writer:
            for shape, taken in ((THINGS, FIRST), (OTHERS, newer)):
                writer.take(shape.name, None, taken)
            late = [thing("ann", 2, "late", epoch=9)]
            with pytest.raises(RefusedError, match=f"taken over.*'{OTHERS.name}'"):
                write_chunks(writer, [chunk(late, epoch=9, shape=shape) for shape in (THINGS, OTHERS)])
            assert writer.cursors()[OTHERS.name] == newer
        assert self.notes(target) == {"ann": "late"}
        assert self.notes(target, OTHERS.name) == {}

    def test_a_column_that_is_new_is_added(self, target: Any) -> None:
        wider = replace(THINGS, columns=(*THINGS.columns, NamedColumn("extra", "BIGINT")))
        for shape, more in ((THINGS, {}), (wider, {"extra": 5})):  # each run takes the table, and prints it
            with opened(target, shape) as writer:
                writer.take(shape.name, None, FIRST)
                writer.write(chunk([{**thing(str(len(more)), 1), **more}], epoch=1, shape=shape))
        assert {row["who"]: row.get("extra") for row in target.rows(THINGS.name)} == {"0": None, "1": 5}

    test_a_column_of_another_type_is_refused_with_what_to_do = None  # lines have no types


def test_the_lines_of_a_run_hold_every_class_of_table_and_those_of_the_next_one_do_again(
    target: Any, tmp_path: Path
) -> None:
    with PipelineTest(shop(), folder=tmp_path / "pipeline", start=START, cuts=5) as test:
        feed(test, 0, 40)
        for first in (40, 64):
            target.begin()
            with following(test, target.replica(chunk_rows_max=40)) as follower:
                catch_up(follower)
                feed(test, first, 24)
                catch_up(follower)
                same(test, target)


def test_a_full_disk_behind_the_standard_output_is_for_an_operator(
    target: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    with small_disk(1) as disk, (disk / "printed").open("w") as printed, opened(target) as writer:
        monkeypatch.setattr(sys, "stdout", printed)
        writer.take(THINGS.name, None, FIRST)
        with full_disk(disk):
            with pytest.raises(RefusedError, match="No space left") as raised:
                writer.write(chunk([thing("ann", 1, "x" * 100_000)], epoch=1))
            assert "make room" in raised.value.fix


PROJECT = """
import headrace as hr
pipeline = hr.Pipeline("shop")
pipeline.stream("events", schema="seen TIMESTAMP NOT NULL, who VARCHAR", event_time="seen")
pipeline.table("counts", "SELECT who, count(*) AS n FROM events GROUP BY who")
"""


def test_a_run_prints_what_changes_in_lines_that_jq_reads(tmp_path: Path) -> None:
    (tmp_path / "pipeline.py").write_text(PROJECT)
    (tmp_path / "headrace.toml").write_text('[profiles.local]\nreplicas.shown = { kind = "stdout" }\n')
    lines = [{"seen": "2026-03-01T12:00:00", "who": who} for who in ("ann", "bob", "ann")]
    (tmp_path / "events.ndjson").write_text("".join(json.dumps(line) + "\n" for line in lines))
    headrace(tmp_path, "produce", "events", "events.ndjson", "--record-time", "event")
    for _ in range(2):
        said = headrace(tmp_path, "run", "--until-caught-up")
        changes = [json.loads(line) for line in said.splitlines() if line.startswith("{")]
        rows = {change["row"]["who"]: change["row"]["n"] for change in changes if change["op"] == "put"}
        assert rows == {"ann": 2, "bob": 1}
        assert {change["table"] for change in changes} == {"counts"}


def headrace(folder: Path, *words: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "headrace", *words],
        cwd=folder, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_who_stops_reading_the_standard_output_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    reading, writing = os.pipe()
    with os.fdopen(writing, "w") as printed:
        monkeypatch.setattr(sys, "stdout", printed)

        class Stdout:
            def replica(self, **options: Any) -> StdoutReplica:
                return StdoutReplica(kind="stdout", **options)

        stdout: Any = Stdout()
        with opened(stdout) as writer:
            writer.take(THINGS.name, None, FIRST)
            writer.write(chunk([thing("ann", 1)], epoch=1))
            os.close(reading)
            with pytest.raises(RefusedError, match="nobody reads"):
                writer.write(chunk([thing("bob", 1)], epoch=2))
