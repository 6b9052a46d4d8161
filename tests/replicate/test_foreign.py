"""A target that holds another history is refused with advice that can be followed."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import pytest
from targets import FilesTarget, ParquetTarget

import headrace as hr
from headrace.errors import RefusedError
from headrace.replicate.follower import Follower
from headrace.replicate.shapes import shape_of, tables_of
from headrace.sql import plan_pipeline
from headrace.store import Store
from headrace.testing import PipelineTest
from headrace.testing.replica_losses import Losing
from headrace.testing.replica_runs import Kept, catch_up, feed, following, shop
from headrace.testing.replica_writes import FIRST, opened
from headrace.testing.replicas import START


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


def test_a_replica_that_is_refused_tells_no_epoch_of_the_store_that_filled_its_target(tmp_path: Path) -> None:
    options = FilesTarget(tmp_path / "target").replica(tables=("totals", "best"))
    with PipelineTest(shop(), folder=tmp_path / "first", start=START, cuts=5) as first:
        feed(first, 0, 60)
        with following(first, options) as follower:
            catch_up(follower)
            left_behind = {copy.shape.name: copy.reached for copy in follower.copies}
    assert min(left_behind.values()) > 1
    with PipelineTest(shop(), folder=tmp_path / "second", start=START) as second:
        feed(second, 0, 1)
        with following(second, options, reached=left_behind) as follower:
            with pytest.raises(RefusedError, match="another store"):
                catch_up(follower)
            assert {copy.shape.name: copy.reached for copy in follower.copies} == {"totals": 0, "best": 0}
            assert follower.reached == 0
    with (
        PipelineTest(shop(), folder=tmp_path / "first", start=START) as first,
        following(first, options, reached=left_behind) as follower,
    ):
        catch_up(follower)
        assert follower.reached == first.store.status().epoch


def test_a_replica_that_is_refused_has_not_reached_an_epoch_whose_rows_are_still_to_be_swept_out(
    tmp_path: Path,
) -> None:
    options = FilesTarget(tmp_path / "target").replica(tables=("totals", "all_rows"))
    lost = Losing(options, lambda place: place.startswith("before sweep"))
    with PipelineTest(shop(), folder=tmp_path / "pipeline", start=START, cuts=5) as test:
        feed(test, 0, 60)
        with following(test, options) as follower:
            catch_up(follower)
        with (
            following(test, lost, again="rebuild") as follower,
            pytest.raises(RefusedError, match="connection"),
        ):
            catch_up(follower)
        shapes = [copy.shape for copy in follower.copies]
        with opened(FilesTarget(tmp_path / "target"), *shapes) as writer:
            seen = writer.cursors()
            first, second = (shape.name for shape in shapes)  # in which order they are taken
            writer.take(first, seen[first], replace(seen[first], store_id="another-store", generation=9))
        assert seen[second].sweep_below
        with following(test, options) as follower:
            with pytest.raises(RefusedError, match="another store"):
                catch_up(follower)
            reached = {copy.shape.name: copy.reached for copy in follower.copies}
        assert reached == {first: 0, second: seen[second].position.epoch - 1}
