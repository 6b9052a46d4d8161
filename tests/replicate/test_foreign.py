"""A target that holds another history is refused with advice that can be followed."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from targets import ParquetTarget

import headrace as hr
from headrace.errors import RefusedError
from headrace.replicate.follower import Follower
from headrace.replicate.shapes import shape_of, tables_of
from headrace.sql import plan_pipeline
from headrace.store import Store
from headrace.testing.replica_runs import Kept, catch_up
from headrace.testing.replica_writes import FIRST, opened


@pytest.mark.parametrize(
    ("tables", "refused", "outside"),
    [
        (("lines",), "lines", True),
        (("counts", "lines"), "counts", True),
        (("counts", "lines"), "counts", False),
    ],
)
def test_nobody_is_told_to_copy_again_what_executors_wrote(
    tmp_path: Path, tables: tuple[str, ...], refused: str, outside: bool
) -> None:
    pipeline = hr.Pipeline("mixed")
    pipeline.stream("events", schema="n BIGINT NOT NULL")
    pipeline.table("counts", "SELECT n, count(*) AS records FROM events GROUP BY n")
    pipeline.table("lines", "SELECT n FROM events")
    plan, target = plan_pipeline(pipeline), ParquetTarget(tmp_path / "lake")
    options = target.replica(tables=tables)
    for table in tables_of(plan, options, "copy"):
        with opened(target, shape_of(table, options)) as writer:
            writer.take(table.name, None, FIRST)  # of the store 'a-store'
    store = Store.open(
        tmp_path / "store.duckdb",
        plan,
        identities={"events": "one"},
        outside={"lines": "replica 'copy'"} if outside else None,
    )
    follower = Follower("copy", options, plan, store, Kept())
    follower.start()
    try:
        with pytest.raises(RefusedError, match=f"'{refused}' was filled from another store") as raised:
            catch_up(follower)
    finally:
        follower.stop(time.monotonic() + 10)
        store.close()
    fix = raised.value.fix
    assert ("`headrace replicas adopt copy`" in fix) == (not outside)
    assert ("another name" in fix) == (refused == "lines")
    assert ("a replica of its own" in fix) == (outside and refused == "counts")
