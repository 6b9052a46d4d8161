"""What is kept of distinct values: compacted while a run goes on, and never more than allowed."""

from pathlib import Path
from typing import Any

import pytest

import headrace as hr
from headrace.engine.local import EngineSettings, LocalEngine
from headrace.errors import RefusedError
from headrace.log import open_embedded_log
from headrace.operate.profiles import EngineOptions
from headrace.sql import plan_pipeline
from headrace.store import Store
from headrace.testing import PipelineTest

TABLES = {
    "hours": "SELECT window_start, count(DISTINCT user_id) AS users FROM events GROUP BY window(seen, '1 h')",
    "overall": "SELECT count(DISTINCT user_id) AS users FROM events",
}


def write(folder: Path, users: list[str]) -> None:
    with PipelineTest(shop(), folder=folder) as test:
        records: list[dict[str, Any]] = [
            {"user_id": user, "seen": f"2026-03-01T12:{n % 50:02d}:00Z"} for n, user in enumerate(users)
        ]
        test.send("events", records, at="2026-03-01T12:55:00Z")


def shop() -> hr.Pipeline:
    pipeline = hr.Pipeline("shop")
    schema = "user_id VARCHAR, seen TIMESTAMP NOT NULL"
    pipeline.stream("events", schema=schema, event_time="seen", allowed_lateness="2 hours")
    for name, query in TABLES.items():
        pipeline.table(name, query)
    return pipeline


def side_rows(folder: Path, name: str, *, values_max: int) -> list[int]:
    """Return how many rows each side table has after epochs of four records."""
    plan = plan_pipeline(shop())
    log = open_embedded_log(folder / "log.db", "events")
    store = Store.open(folder / f"{name}.duckdb", plan, identities={"events": log.identity})
    engine = LocalEngine(plan, {"events": log}, store, settings=EngineSettings(side_values_max=values_max))
    try:
        while engine.step(rows_max=4) is not None:
            pass
        assert store.query("FROM overall").to_pylist() == [{"users": 5}]
        assert [row["users"] for row in store.query("FROM hours").to_pylist()] == [5]
        return [
            store.query(f'SELECT count(*) AS n FROM _state."{table}__g0"').to_pylist()[0]["n"]
            for table in TABLES
        ]
    finally:
        engine.close()
        store.close()
        log.close()


def test_repeated_values_are_compacted_and_counted_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, [f"u{n % 5}" for n in range(48)])
    loose = side_rows(tmp_path, "loose", values_max=1_000)
    monkeypatch.setattr("headrace.engine.local.sides._APPENDED_MIN", 7)
    tight = side_rows(tmp_path, "tight", values_max=1_000)
    assert min(loose) >= 48 * 0.75
    assert max(tight) <= 5 + 7 + 4


def test_the_limit_is_about_values_and_not_about_how_often_they_came(tmp_path: Path) -> None:
    write(tmp_path, [f"u{n % 5}" for n in range(40)])
    assert max(side_rows(tmp_path, "enough", values_max=5)) == 5
    with pytest.raises(RefusedError, match="distinct values") as refused:
        side_rows(tmp_path, "few", values_max=4)
    key = refused.value.fix.rpartition(" ")[2]
    assert key.removeprefix("engine_settings.") in EngineOptions.__dataclass_fields__
