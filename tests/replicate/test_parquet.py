"""What is the Parquet replica's own: its folders, what a reader sees, what a crash leaves behind."""

from __future__ import annotations

import errno
import random
import shutil
import subprocess
import sys
import threading
import weakref
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest
from targets import ParquetTarget

from headrace.errors import ProfileError, RefusedError, TransientError
from headrace.replicate.folders import folder_failures, write_json
from headrace.replicate.parquet.datafiles import read_rows
from headrace.replicate.parquet.manifest import Manifest, books_of, listed_files
from headrace.replicate.parquet.tree import Tree
from headrace.replicate.protocol import Chunk, Cursor, NamedColumn, Position, TableShape, version_of
from headrace.testing.replica_writes import FIRST, opened

pytestmark = pytest.mark.slow

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
WINDOWS = TableShape(
    name="counts",
    columns=(
        NamedColumn("window_start", "TIMESTAMP WITH TIME ZONE"),
        NamedColumn("n", "BIGINT"),
        NamedColumn("_revision", "INTEGER"),
    ),
    key=("window_start", "_revision"),
)
SCHEMA = pa.schema(
    [
        ("window_start", pa.timestamp("us", "UTC")),
        ("n", pa.int64()),
        ("_revision", pa.int32()),
        ("_version", pa.int64()),
    ]
)


@pytest.fixture
def target(tmp_path: Path) -> ParquetTarget:
    return ParquetTarget(tmp_path / "warehouse")


def windows(epoch: int, count: int = 1, *, cursor: Cursor = FIRST, at: datetime = NOON, **more: Any) -> Chunk:
    """A chunk with windows that no other epoch has."""
    rows = [
        {
            "window_start": at + timedelta(seconds=epoch * 10 + i / count * 10),
            "n": epoch,
            "_revision": 0,
            "_version": version_of(cursor.generation, epoch),
        }
        for i in range(count)
    ]
    done = replace(cursor, position=Position.at(epoch))
    removed = pa.Table.from_pylist([], pa.schema([SCHEMA.field(0), SCHEMA.field(2), SCHEMA.field(3)]))
    rows_of = pa.Table.from_pylist(rows, SCHEMA)
    return Chunk(table=WINDOWS, rows=rows_of, removed=removed, cursor=done, **more)


def plain_count(target: ParquetTarget) -> tuple[int, int]:
    """How many rows anybody finds who reads every file, and how many windows."""
    with duckdb.connect() as connection:
        found = connection.execute(
            "SELECT count(*), count(DISTINCT window_start) FROM read_parquet($1, hive_partitioning = true)",
            [f"{target.folder}/counts/**/*.parquet"],
        ).fetchall()[0]
    return found[0], found[1]


def test_rows_lie_in_folders_by_date_and_hour(target: ParquetTarget) -> None:
    with opened(target, WINDOWS, mode="append") as writer:
        writer.take("counts", None, FIRST)
        writer.write(windows(1, at=NOON - timedelta(hours=5)))
        writer.write(windows(2))
    folders = {str(path.parent.relative_to(target.folder)) for path in target.folder.rglob("*.parquet")}
    assert folders == {"counts/date=2026-03-01/hour=7", "counts/date=2026-03-01/hour=12"}
    with duckdb.connect() as connection:
        found = connection.sql(
            f"SELECT date::VARCHAR, hour, n FROM read_parquet('{target.folder}/counts/**/*.parquet', "
            "hive_partitioning = true) ORDER BY n"
        ).fetchall()
    assert found == [("2026-03-01", 7, 1), ("2026-03-01", 12, 2)]


def test_a_table_with_a_column_called_hour_or_without_an_instant_has_no_folders(
    target: ParquetTarget,
) -> None:
    shape = TableShape(name="plain", columns=(NamedColumn("hour", "INTEGER"),), key=("hour",))
    with opened(target, shape) as writer:
        writer.take("plain", None, FIRST)
        rows = pa.table({"hour": pa.array([5], pa.int32()), "_version": [version_of(1, 1)]})
        cursor = replace(FIRST, position=Position.at(1))
        writer.write(Chunk(table=shape, rows=rows, removed=rows.slice(0, 0), cursor=cursor))
    assert [path.parent.name for path in target.folder.rglob("*.parquet")] == ["plain"]


def test_a_column_that_is_no_instant_makes_no_folders(target: ParquetTarget) -> None:
    with pytest.raises(ProfileError, match="'n'"), opened(target, WINDOWS, partition_by="n"):
        pass


def test_small_files_are_put_together_and_a_reader_never_sees_a_row_twice(target: ParquetTarget) -> None:
    seen: list[tuple[int, int]] = []
    done = threading.Event()

    def look() -> None:
        while not done.is_set():
            try:
                seen.append(plain_count(target))
            except duckdb.IOException:
                continue  # no file yet, or one that was put together while it was read

    reader = threading.Thread(target=look)
    with opened(target, WINDOWS, mode="append") as writer:
        writer.take("counts", None, FIRST)
        writer.write(windows(1, 50))
        reader.start()
        for epoch in range(2, 61):
            writer.write(windows(epoch, 50))
    done.set()
    reader.join()
    assert plain_count(target) == (3_000, 3_000)
    assert len(listed_files(target.folder, "counts")) < 20
    assert len(seen) > 3
    assert all(rows == distinct for rows, distinct in seen)
    assert [rows for rows, _ in seen] == sorted(rows for rows, _ in seen), "rows were gone for a while"


def test_a_commit_whose_files_were_not_moved_is_finished_by_the_next_writer(
    target: ParquetTarget, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened(target, WINDOWS, mode="append") as writer:
        writer.take("counts", None, FIRST)
        for epoch in range(1, 8):
            writer.write(windows(epoch))
        for epoch in (8, 9):
            with monkeypatch.context() as patch:
                patch.setattr(Manifest, "save", saved_and_killed)
                with pytest.raises(KeyboardInterrupt):
                    writer.write(windows(epoch))
            assert plain_count(target) == (epoch - 1, epoch - 1)
            with opened(target, WINDOWS, mode="append") as again:
                assert again.cursors()["counts"].position == Position.at(epoch)
            assert plain_count(target) == (epoch, epoch)


def test_files_that_were_not_committed_are_never_seen_and_go_away(
    target: ParquetTarget, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened(target, WINDOWS, mode="append") as writer:
        writer.take("counts", None, FIRST)
        writer.write(windows(1))
        with monkeypatch.context() as patch:
            patch.setattr(Tree, "commit", killed)
            with pytest.raises(KeyboardInterrupt):
                writer.write(windows(2, 500))
        assert plain_count(target) == (1, 1)
        writer.write(windows(2, 5))
    assert plain_count(target) == (6, 6)
    assert len([*target.folder.rglob("*.parquet")]) == len(listed_files(target.folder, "counts")) == 2


def saved_and_killed(manifest: Manifest, path: Path) -> None:
    write_json(path, asdict(manifest))
    raise KeyboardInterrupt


def killed(*_: Any) -> None:
    raise KeyboardInterrupt


def test_a_table_that_is_copied_again_has_no_row_twice_at_any_time(target: ParquetTarget) -> None:
    second = replace(FIRST, generation=2, sweep_below=version_of(2, 0))
    with opened(target, WINDOWS, mode="append") as writer:
        writer.take("counts", None, FIRST)
        for epoch in (1, 2, 3):
            writer.write(windows(epoch, 4))
        writer.take("counts", replace(FIRST, position=Position.at(3)), second)
        for epoch in (1, 2):
            writer.write(windows(epoch, 4, cursor=second))
            assert plain_count(target) == (12, 12)
        last = replace(second, sweep_below=0)
        writer.write(windows(4, 4, cursor=last, sweep_below=second.sweep_below))
    assert plain_count(target) == (12, 12)
    assert {row["n"] for row in target.rows("counts")} == {1, 2, 4}


def test_folders_that_somebody_took_away_are_not_missed(target: ParquetTarget) -> None:
    with opened(target, WINDOWS, mode="append") as writer:
        writer.take("counts", None, FIRST)
        writer.write(windows(1, at=NOON - timedelta(days=1)))
        writer.write(windows(2))
    for path in (target.folder / "counts" / "date=2026-02-28").rglob("*.parquet"):
        path.unlink()
    with opened(target, WINDOWS, mode="append") as writer:
        writer.take("counts", writer.cursors()["counts"], replace(FIRST, generation=2))
        assert len(listed_files(target.folder, "counts")) == 1


def test_a_file_that_is_missing_from_its_folder_is_told(target: ParquetTarget) -> None:
    with opened(target, WINDOWS, mode="append") as writer:
        writer.take("counts", None, FIRST)
        writer.write(windows(1))
        writer.write(windows(2))
        listed_files(target.folder, "counts")[0].unlink()
        with pytest.raises(RefusedError, match="is gone"):
            writer.take("counts", writer.cursors()["counts"], replace(FIRST, generation=2))


def test_a_folder_that_is_taken_away_while_a_writer_is_open_costs_no_row_that_comes(
    target: ParquetTarget,
) -> None:
    with opened(target, WINDOWS, mode="append") as writer:
        writer.take("counts", None, FIRST)
        writer.write(windows(1))
        shutil.rmtree(target.folder / "counts" / "date=2026-03-01")
        writer.write(windows(2))
        assert [row["n"] for row in target.rows("counts")] == [2]
        listed_files(target.folder, "counts")[0].unlink()
        (target.folder / "counts" / "date=2026-03-01" / "hour=12" / "mine.parquet").write_bytes(b"")
        with pytest.raises(RefusedError, match="is gone"):
            writer.write(windows(3))


def test_a_file_that_somebody_put_into_a_folder_that_the_table_had_not_is_told_and_kept(
    target: ParquetTarget,
) -> None:
    history = target.folder / "counts" / "date=2026-02-28" / "hour=12" / "history.parquet"
    with opened(target, WINDOWS, mode="append") as writer:
        writer.take("counts", None, FIRST)
        writer.write(windows(1))
        history.parent.mkdir(parents=True)
        history.write_bytes(b"theirs")
        writer.write(windows(2))
        with pytest.raises(RefusedError, match=r"history.parquet is not listed"):
            writer.write(windows(3, at=NOON - timedelta(days=1)))
    assert history.read_bytes() == b"theirs"


def test_files_of_which_no_manifest_tells_are_not_written_to(target: ParquetTarget) -> None:
    with opened(target, WINDOWS, mode="append") as writer:
        writer.take("counts", None, FIRST)
        writer.write(windows(1))
    (books_of(target.folder, "counts") / "manifest.json").unlink()
    with pytest.raises(RefusedError, match="manifest") as raised, opened(target, WINDOWS, mode="append"):
        pass
    assert "bring the manifest back" in raised.value.fix


def test_a_row_whose_instant_changes_moves_to_another_folder(target: ParquetTarget) -> None:
    shape = TableShape(
        name="latest", columns=(NamedColumn("who", "VARCHAR"), *WINDOWS.columns[:2]), key=("who",)
    )
    with opened(target, shape) as writer:
        writer.take("latest", None, FIRST)
        for epoch, hour in ((1, 12), (2, 15), (3, 12)):
            rows = [
                {"who": who, "window_start": NOON.replace(hour=hour if who == "ann" else 12), "n": epoch}
                for who in ("ann", "bob")
            ]
            schema = pa.schema([("who", pa.string()), *(SCHEMA.field(i) for i in (0, 1))])
            table = pa.Table.from_pylist(rows, schema)
            table = table.append_column("_version", pa.array([version_of(1, epoch)] * 2, pa.int64()))
            cursor = replace(FIRST, position=Position.at(epoch))
            gone = table.select(["who", "_version"]).slice(0, 0)
            writer.write(Chunk(table=shape, rows=table, removed=gone, cursor=cursor))
            found = sorted((row["who"], row["window_start"].hour, row["n"]) for row in target.rows("latest"))
            assert found == [("ann", hour, epoch), ("bob", 12, epoch)]


def test_a_rebuild_holds_one_file_at_a_time(target: ParquetTarget, monkeypatch: pytest.MonkeyPatch) -> None:
    alive: list[weakref.ref[pa.Table]] = []
    most = 0

    def read(path: Path, columns: list[str] | None = None) -> pa.Table:
        nonlocal most
        rows = read_rows(path, columns)
        alive.append(weakref.ref(rows))
        most = max(most, sum(each() is not None for each in alive))
        return rows

    with opened(target, WINDOWS, mode="append") as writer:
        writer.take("counts", None, FIRST)
        for hour in range(6):
            writer.write(windows(hour + 1, 5, at=NOON - timedelta(hours=hour)))
        second = replace(FIRST, generation=2, sweep_below=version_of(2, 0))
        writer.take("counts", replace(FIRST, position=Position.at(6)), second)
        monkeypatch.setattr("headrace.replicate.parquet.merging.read_rows", read)
        monkeypatch.setattr("headrace.replicate.parquet.writer.read_rows", read)
        both = [windows(hour + 1, 5, at=NOON - timedelta(hours=hour), cursor=second) for hour in range(6)]
        rows = pa.concat_tables([each.rows for each in both])
        writer.write(replace(both[-1], rows=rows))
        writer.write(windows(9, 1, cursor=replace(second, sweep_below=0), sweep_below=second.sweep_below))
    assert len(alive) >= 6
    assert most <= 3, "what a chunk touches was held all at once"
    assert plain_count(target) == (31, 31)


@pytest.mark.parametrize("code", [errno.EIO, errno.ESTALE, errno.ENOSPC])
def test_a_disk_that_is_away_or_full_is_tried_again(tmp_path: Path, code: int) -> None:
    with pytest.raises(TransientError), folder_failures(tmp_path):
        raise OSError(code, "not now")


WRITING = """
import sys
sys.path[:0] = sys.argv[2:]
from pathlib import Path
from targets import ParquetTarget
from test_parquet import FIRST, WINDOWS, opened, windows
with opened(ParquetTarget(Path(sys.argv[1])), WINDOWS, mode="append") as writer:
    at = writer.cursors().get("counts")
    if at is None:
        writer.take("counts", None, FIRST)
    for epoch in range(at.position.epoch + 1 if at else 1, 400):
        writer.write(windows(epoch, 20))
        print(epoch, flush=True)
"""


def test_a_process_that_is_killed_while_it_writes_loses_and_doubles_nothing(target: ParquetTarget) -> None:
    chance, written = random.Random(3), 0
    folders = [str(Path(__file__).parent), str(Path(__file__).parents[1])]
    for _ in range(5):
        process = subprocess.Popen(
            [sys.executable, "-c", WRITING, str(target.folder), *folders], stdout=subprocess.PIPE
        )
        assert process.stdout is not None
        for _ in range(chance.randrange(3, 12)):
            written = int(process.stdout.readline())
        threading.Event().wait(chance.random() / 20)
        process.kill()
        process.stdout.close()
        process.wait()
        with opened(target, WINDOWS, mode="append") as writer:
            epochs = writer.cursors()["counts"].position.epoch
        assert epochs >= written
        assert plain_count(target) == (20 * epochs, 20 * epochs)
