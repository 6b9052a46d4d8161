"""Stores that an older version wrote: taken over, and what is forgotten of them."""

from pathlib import Path

import duckdb

import headrace as hr
from headrace.sql import plan_pipeline
from headrace.store import Store
from headrace.store.takings import Taking, takings_of, write_taking


def opened(path: Path) -> Store:
    pipeline = hr.Pipeline("p")
    pipeline.stream("events", schema="id VARCHAR, seen TIMESTAMP NOT NULL", event_time="seen", unique="id")
    pipeline.table("counted", "SELECT count(*) AS n FROM events")
    return Store.open(path / "s.duckdb", plan_pipeline(pipeline), identities={"events": "log-1"})


def test_a_store_of_a_layout_before_is_taken_over_and_then_refused_by_who_would_not_note_what_it_copies(
    tmp_path: Path,
) -> None:
    opened(tmp_path).close()
    with duckdb.connect(tmp_path / "s.duckdb") as store:
        store.execute("DROP TABLE _headrace.takings")
        store.execute("UPDATE _headrace.meta SET value = '3' WHERE name = 'schema_version'")
    opened(tmp_path).close()
    with duckdb.connect(tmp_path / "s.duckdb", read_only=True) as store:
        (layout,) = store.execute("SELECT value FROM _headrace.meta WHERE name = 'schema_version'").fetchall()
        assert layout == ("4",), "which versions that know no takings do not open"
        assert store.execute("SELECT count(*) FROM _headrace.takings").fetchall() == [(0,)]


def test_generations_are_forgotten_of_a_store_that_a_version_without_takings_has_run(tmp_path: Path) -> None:
    store = opened(tmp_path)
    with store.beside() as cursor:
        write_taking(cursor, "copy", "t", Taking(generation=3, ceiling=7))
    store.close()
    opened(tmp_path).close()
    with duckdb.connect(tmp_path / "s.duckdb") as file:
        assert takings_of(file, "copy") == {"t": Taking(generation=3, ceiling=7)}, "this version notes them"
        file.execute("UPDATE _headrace.meta SET value = '3' WHERE name = 'schema_version'")
    opened(tmp_path).close()
    with duckdb.connect(tmp_path / "s.duckdb", read_only=True) as file:
        assert takings_of(file, "copy") == {"t": Taking(generation=None, ceiling=7)}
