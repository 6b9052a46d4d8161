"""Closed windows keep the values of their side tables, and nobody counts those again."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import duckdb
import pytest

import headrace as hr
from headrace.errors import RefusedError
from headrace.sql import plan_pipeline
from headrace.store import Store
from headrace.testing import PipelineTest

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
FIRST = [{"window_start": NOON.replace(tzinfo=UTC), "kind": None, "users": 2, "middle": 2.0}]
CORRECTED = [{"window_start": NOON.replace(tzinfo=UTC), "kind": None, "users": 3, "middle": 3.0}]


def visits() -> hr.Pipeline:
    pipeline = hr.Pipeline("visits")
    pipeline.stream(
        "events",
        schema="who VARCHAR NOT NULL, seen TIMESTAMP NOT NULL, kind VARCHAR, v INT",
        event_time="seen",
        allowed_lateness="1 minute",
    )
    pipeline.table(
        "minutes",
        "SELECT window_start, kind, count(DISTINCT who) AS users, median(v) AS middle "
        "FROM events GROUP BY window(seen, '1 minute'), kind",
    )
    return pipeline


def visit(who: str, v: int, seen: datetime = NOON) -> dict[str, Any]:
    return {"who": who, "v": v, "seen": seen.isoformat(), "kind": None}


def close_the_first(test: PipelineTest) -> None:
    """Two visits at noon, a record that cannot be read, and the window of noon is closed."""
    test.send("events", [visit("a", 1), visit("b", 3)])
    test.send_bytes("events", b"half a rec")
    test.run()
    test.clock.time = NOON + 10 * MINUTE
    test.send("events", visit("c", 5, NOON + 10 * MINUTE))
    test.run()


def finished(test: PipelineTest) -> list[Any]:
    rows = test.query("SELECT _finished FROM _state.minutes ORDER BY window_start")
    return [row["_finished"] for row in rows]


def at_noon(test: PipelineTest) -> list[dict[str, Any]]:
    return test.query(f"FROM minutes WHERE window_start = TIMESTAMPTZ '{NOON.isoformat()}'")


def test_a_closed_window_answers_without_its_side_tables() -> None:
    with PipelineTest(visits(), start=NOON) as test:
        close_the_first(test)
        assert at_noon(test) == FIRST
        assert finished(test) == [True, None]
        with test.store.transaction():
            test.store.connection.execute("DELETE FROM _state.minutes__g0")
            test.store.connection.execute("DELETE FROM _state.minutes__g1")
        assert at_noon(test) == FIRST


def test_a_correction_counts_its_window_again_and_it_is_kept_when_windows_close_next() -> None:
    with PipelineTest(visits(), start=NOON) as test:
        close_the_first(test)
        test.redrive("events", 0, 2, visit("d", 10))
        test.run()
        assert at_noon(test) == CORRECTED
        assert finished(test) == [None, None]
        test.clock.time = NOON + 20 * MINUTE
        test.send("events", visit("e", 5, NOON + 20 * MINUTE))
        test.run()
        assert finished(test) == [True, True, None]
        assert at_noon(test) == CORRECTED


def test_a_correction_before_a_restart_is_kept_when_windows_close_next() -> None:
    with PipelineTest(visits(), start=NOON) as test:
        close_the_first(test)
        test.redrive("events", 0, 2, visit("d", 10))
        test.run()
        test.restart()
        test.clock.time = NOON + 20 * MINUTE
        test.send("events", visit("e", 5, NOON + 20 * MINUTE))
        test.run()
        assert finished(test) == [True, True, None]
        assert at_noon(test) == CORRECTED


def test_a_crash_while_windows_close_leaves_them_to_the_next_epoch() -> None:
    with PipelineTest(visits(), start=NOON) as test:
        test.send("events", [visit("a", 1), visit("b", 3)])
        test.run()
        test.clock.time = NOON + 10 * MINUTE
        test.send("events", visit("c", 5, NOON + 10 * MINUTE))
        test.crash_at("closings")
        test.run()
        assert finished(test) == [True, None]
        assert at_noon(test) == FIRST


def as_before(folder: Path) -> None:
    """Make the store of a folder what it was before closed windows kept values."""
    with duckdb.connect(folder / "store.duckdb") as store:
        store.execute("DROP VIEW minutes")
        for column in ("_finished", "g0", "g1"):
            store.execute(f"ALTER TABLE _state.minutes DROP COLUMN {column}")
        store.execute("UPDATE _headrace.meta SET value = '2' WHERE name = 'schema_version'")


def test_a_store_of_before_is_taken_over_and_its_windows_keep_values_from_the_next_close_on(
    tmp_path: Path,
) -> None:
    with PipelineTest(visits(), start=NOON, folder=tmp_path) as test:
        close_the_first(test)
    as_before(tmp_path)
    with PipelineTest(visits(), start=NOON + 11 * MINUTE, folder=tmp_path) as test:
        assert finished(test) == [None, None]
        assert at_noon(test) == FIRST
        test.clock.time = NOON + 20 * MINUTE
        test.send("events", visit("e", 5, NOON + 20 * MINUTE))
        test.run()
        assert finished(test) == [True, True, None]
        assert at_noon(test) == FIRST


def test_windows_of_a_store_that_was_taken_over_keep_values_some_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("headrace.store.finished._WINDOWS_AT_ONCE", 2)
    with PipelineTest(visits(), start=NOON, folder=tmp_path) as test:
        for minute in range(6):
            test.clock.time = NOON + minute * MINUTE
            test.send("events", visit("a", 1, NOON + minute * MINUTE))
        test.run()
    as_before(tmp_path)
    with PipelineTest(visits(), start=NOON + 10 * MINUTE, folder=tmp_path) as test:
        kept = [0]
        for minute in range(10, 20):
            test.clock.time = NOON + minute * MINUTE
            test.send("events", visit("b", 1, NOON + minute * MINUTE))
            test.run()
            kept.append(finished(test).count(True))
            users = [row["users"] for row in test.query("FROM minutes ORDER BY window_start")]
            assert users == [1] * (minute - 3)
        assert max(after - before for before, after in pairwise(kept)) == 2
        assert finished(test)[:13] == [True] * 13


def test_a_store_of_before_that_was_opened_for_another_query_still_opens_for_its_own(tmp_path: Path) -> None:
    with PipelineTest(visits(), start=NOON, folder=tmp_path) as test:
        close_the_first(test)
    as_before(tmp_path)
    other = visits()
    other.tables = ()
    other.table("minutes", "SELECT window_start, count(*) AS n FROM events GROUP BY window(seen, '1 minute')")
    path = tmp_path / "store.duckdb"
    Store.open(path, plan_pipeline(other), identities={}, rebuild=("minutes",)).close()
    store = Store.open(path, plan_pipeline(visits()), identities={})
    assert store.query("SELECT users FROM minutes ORDER BY window_start").to_pylist()[0] == {"users": 2}
    store.close()


def test_a_store_of_a_later_layout_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    with PipelineTest(visits(), start=NOON, folder=tmp_path) as test:
        close_the_first(test)
    with duckdb.connect(tmp_path / "store.duckdb") as store:
        store.execute("UPDATE _headrace.meta SET value = '99' WHERE name = 'schema_version'")
    with pytest.raises(RefusedError, match="has layout 99"), PipelineTest(visits(), folder=tmp_path):
        pass
    with duckdb.connect(tmp_path / "store.duckdb", read_only=True) as store:
        assert store.execute("SELECT count(*) FROM minutes").fetchall() == [(2,)]
