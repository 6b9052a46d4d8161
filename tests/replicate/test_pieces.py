"""A span of many rows is sent in small pieces without being read anew for each of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from targets import FilesTarget

from headrace.replicate import copying_rows
from headrace.replicate.copying_rows import Ahead, RowsCopy
from headrace.store.changes import Position
from headrace.testing import PipelineTest
from headrace.testing.replica_runs import catch_up, feed, following, shop, sorted_rows
from headrace.testing.replicas import START, same


def test_many_rows_in_small_chunks_take_few_readings_of_the_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    readings: list[int] = []
    reading = copying_rows.changed_rows

    def counted(*words: Any, **more: Any) -> Any:
        readings.append(1)
        return reading(*words, **more)

    monkeypatch.setattr(copying_rows, "changed_rows", counted)
    target = FilesTarget(tmp_path / "files")
    with PipelineTest(shop(), folder=tmp_path / "pipeline", start=START) as test:
        test.send("events", [{"id": f"e{i}", "seen": START, "who": f"u{i}", "n": i} for i in range(3_000)])
        test.run()
        with following(test, target.replica(tables=("all_rows", "totals"), chunk_rows_max=30)) as follower:
            catch_up(follower)
            assert [copy.rows_sent for copy in follower.copies] == [3_000, 3_000]
        same(test, target, ("all_rows", "totals"))
    assert len(readings) <= 8, "each chunk had a look at all of the span"


@pytest.mark.parametrize("chunk_rows_max", [10_000, 15])
def test_windows_and_sessions_closed_by_many_epochs_come_in_as_few_chunks_as_hold_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunk_rows_max: int
) -> None:
    sizes: dict[str, list[int]] = {"revenue": [], "visits": []}
    written = RowsCopy.written

    def noted(self: RowsCopy, chunk: Any) -> None:
        sizes[self.shape.name].append(chunk.rows.num_rows)
        written(self, chunk)

    monkeypatch.setattr(RowsCopy, "written", noted)
    target = FilesTarget(tmp_path / "files")
    with PipelineTest(shop(), folder=tmp_path / "pipeline", start=START) as test:
        for first in range(0, 480, 24):
            feed(test, first, 24)
        with test.store.snapshot() as reader:
            told = 'SELECT "table", count(DISTINCT epoch) FROM _headrace._closings GROUP BY 1'
            closings = dict(reader.execute(told).fetchall())
        options = target.replica(tables=tuple(sizes), mode="append", chunk_rows_max=chunk_rows_max)
        with following(test, options) as follower:
            catch_up(follower)
        closed = {table.table: table.closed_through for table in test.store.status().tables}
        for table, chunks in sizes.items():
            most = 2 * -(-sum(chunks) // chunk_rows_max) - 1  # none fits into the one before it
            assert closings[table] > most, "too little is closed to show anything"
            assert len(chunks) <= most
            through = closed[table]
            assert through is not None
            wanted = [row for row in test.table(table) if row["window_end"] <= through]
            assert sorted_rows(target.rows(table)) == sorted_rows(wanted)


def test_rows_of_one_hash_stay_in_one_piece() -> None:
    begin, end = Position(3, 9), Position.at(9)
    rows = pa.table({"n": [1, 2, 3, 4, 5], "_hash": pa.array([10, 20, 20, 20, 30], pa.int64())})
    first, behind, rest = Ahead(begin, rows, end).cut(2)
    assert first.column("n").to_pylist() == [1, 2, 3, 4]
    assert behind == Position(3, 9, 20)
    assert rest is not None
    last, done, nothing = rest.cut(2)
    assert (last.column("n").to_pylist(), done, nothing) == ([5], end, None)
