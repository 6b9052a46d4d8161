"""Tables whose rows are in files: the store has the list, says so, and lets no table be in two places."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import headrace as hr
from headrace.errors import RefusedError
from headrace.sql import plan_pipeline
from headrace.store import Store, open_store_readonly
from headrace.store.outside import RowFile, files_after, list_files, listed_names

PLACE = {"clicks": "replica 'lake', delta, /lake"}


def planned(columns: str = "n, page", name: str = "clicks") -> hr.Pipeline:
    pipeline = hr.Pipeline("listed")
    pipeline.stream("events", schema="n BIGINT NOT NULL, page STRUCT(title VARCHAR)")
    pipeline.table(name, f"SELECT {columns} FROM events")
    return pipeline


@contextmanager
def opened(
    folder: Path,
    outside: dict[str, str] | None = None,
    rebuild: tuple[str, ...] = (),
    pipeline: hr.Pipeline | None = None,
    moved: Callable[[str, str, str], bool] | None = None,
) -> Iterator[Store]:
    store = Store.open(
        folder / "store.duckdb",
        plan_pipeline(pipeline or planned()),
        identities={"events": "one"},
        outside=outside,
        rebuild=rebuild,
        moved=moved,
    )
    try:
        yield store
    finally:
        store.close()


def file_of(epoch: int, number: int = 0, **more: object) -> RowFile:
    given = {"name": f"e{epoch}-{number}", "folder": ".", "epoch": epoch, "rows": 3, "bytes": 9, **more}
    return RowFile(**given)  # type: ignore[arg-type]


def test_files_come_back_in_whole_epochs_as_they_were_listed(tmp_path: Path) -> None:
    odd = file_of(1, 1, name="", rows=0, refused=(("{}", "'day' is too far"), ("{}", "'day' is, too")))
    given = [file_of(1), odd, file_of(2), file_of(2, 1), file_of(4, folder="date=2026-03-01/hour=7")]
    with opened(tmp_path, PLACE) as store:
        with store.transaction():
            list_files(store.connection, "clicks", given)
            list_files(store.connection, "other", [file_of(3)])
        with store.snapshot() as reader:
            known = {each: each for each in given}
            assert set(files_after(reader, "clicks", 0, files_max=99)) == known.keys()
            assert {f.epoch for f in files_after(reader, "clicks", 0, files_max=3)} == {1, 2}
            assert {f.epoch for f in files_after(reader, "clicks", 0, files_max=1)} == {1}
            assert files_after(reader, "clicks", 2, files_max=1) == [given[-1]]
            assert files_after(reader, "clicks", 4, files_max=1) == []
            assert listed_names(reader, "clicks") == {each.name for each in given}
        assert [table.rows for table in store.status().tables] == [12]


class Counted:
    """A connection that counts its statements."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self.statements = 0

    def execute(self, sql: str, values: list[object]) -> None:
        self.statements += 1
        self._connection.execute(sql, values)

    def executemany(self, sql: str, lines: list[list[object]]) -> None:
        self.statements += len(lines)
        self._connection.executemany(sql, lines)


def test_all_files_of_an_epoch_are_listed_by_one_statement(tmp_path: Path) -> None:
    given = [file_of(1, number) for number in range(50)]
    with opened(tmp_path, PLACE) as store:
        counted = Counted(store.connection)
        with store.transaction():
            list_files(counted, "clicks", given)
            list_files(counted, "clicks", ())
        assert counted.statements == 1
        assert files_after(store.connection, "clicks", 0, files_max=99) == sorted(given, key=lambda f: f.name)


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT * FROM clicks",
        "SELECT count(*) AS n FROM clicks",
        "SELECT * FROM clicks WHERE n = 1",
        "SELECT count(*) AS n FROM clicks WHERE n > 0",
        "SELECT count(n) AS n FROM clicks WHERE n IS NOT NULL",
        "SELECT n, count(*) AS found FROM clicks WHERE n BETWEEN 1 AND 3 GROUP BY n",
        "SELECT * FROM clicks WHERE page.title = 'x'",
        "SELECT x, n FROM (VALUES (1)) given(x) JOIN clicks ON n = x",
        "SELECT x FROM (VALUES (1)) given(x) SEMI JOIN clicks ON n = x",
        "SELECT EXISTS (FROM clicks WHERE n = 1) AS found",
    ],
)
def test_who_reads_such_a_table_is_told_where_its_rows_are(tmp_path: Path, sql: str) -> None:
    with opened(tmp_path, PLACE) as store, pytest.raises(RefusedError, match="replica 'lake', delta, /lake"):
        store.query(sql)
    stopped = open_store_readonly(tmp_path / "store.duckdb")
    with pytest.raises(RefusedError, match="not in the store"):
        stopped.query(sql)
    assert [table.rows for table in stopped.status().tables] == [0]
    stopped.close()


def test_a_table_with_files_goes_on_with_files_only_and_is_not_computed_again(tmp_path: Path) -> None:
    with opened(tmp_path, PLACE) as store, store.transaction():
        list_files(store.connection, "clicks", [file_of(1)])
    with pytest.raises(RefusedError, match="Spark's executors have written them"), opened(tmp_path):
        pass
    for pipeline in (planned(), planned("n")):
        again = opened(tmp_path, PLACE, rebuild=("clicks",), pipeline=pipeline)
        with pytest.raises(RefusedError, match="no key by which"), again:
            pass
    with opened(tmp_path, PLACE) as store:
        assert [table.rows for table in store.status().tables] == [3]


def test_a_table_with_files_goes_on_in_the_same_place_or_where_they_were_moved(tmp_path: Path) -> None:
    other = {"clicks": "replica 'lake', delta, /sea"}
    for place in (other, PLACE):  # no file yet
        with opened(tmp_path, place):
            pass
    with opened(tmp_path, PLACE) as store, store.transaction():
        list_files(store.connection, "clicks", [file_of(1)])
    for _ in range(2):
        with pytest.raises(RefusedError, match=r"delta, /lake.*delta, /sea"), opened(tmp_path, other):
            pass
    asked = list[tuple[str, ...]]()

    def moved(*facts: str) -> bool:
        asked.append(facts)
        return True

    with opened(tmp_path, PLACE) as store:
        store_id = store.status().store_id
    with opened(tmp_path, other, moved=moved) as store:
        assert [table.rows for table in store.status().tables] == [3]
    assert asked == [("clicks", PLACE["clicks"], store_id)]
    with pytest.raises(RefusedError, match=r"delta, /sea.*delta, /lake"), opened(tmp_path, PLACE):
        pass


def test_a_table_with_rows_in_the_store_gets_no_files(tmp_path: Path) -> None:
    with opened(tmp_path) as store, store.transaction():
        store.connection.execute("INSERT INTO _state.clicks (n, _epoch) VALUES (1, 1)")
    with pytest.raises(RefusedError, match="the store holds rows"), opened(tmp_path, PLACE):
        pass
    with opened(tmp_path) as store:
        assert store.query("SELECT n FROM clicks").to_pylist() == [{"n": 1}]


def test_without_rows_and_files_a_table_may_have_either(tmp_path: Path) -> None:
    for outside in (PLACE, None, PLACE):
        with opened(tmp_path, outside) as store:
            assert dict(store.outside) == (outside or {})
            if outside is None:
                assert store.query("FROM clicks").num_rows == 0


def test_a_table_that_is_not_declared_any_more_leaves_no_list_behind(tmp_path: Path) -> None:
    with opened(tmp_path, PLACE) as store, store.transaction():
        list_files(store.connection, "clicks", [file_of(1)])
    with opened(tmp_path, pipeline=planned(name="views")) as store:
        (notice,) = store.notices
        assert "stay there (replica 'lake', delta, /lake)" in notice
        assert "under another name" in notice
    with opened(tmp_path) as store:
        assert listed_names(store.connection, "clicks") == set()
        assert store.query("FROM clicks").num_rows == 0
