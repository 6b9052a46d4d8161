"""Tables that the store computes again (`run --rebuild`), and windows that it keeps for a while only."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from targets import FilesTarget

from headrace.declare import Pipeline
from headrace.errors import RefusedError
from headrace.testing.pipeline_test import PipelineTest
from headrace.testing.replica_runs import catch_up, compute_again, following, sorted_rows

START = "2026-03-01T12:00:00"
COUNTS = "SELECT window_start, who, count(*) AS n FROM events GROUP BY window(seen, '10 minutes'), who"


@pytest.fixture
def target(tmp_path: Path) -> FilesTarget:
    return FilesTarget(tmp_path / "target")


@pytest.fixture
def test(tmp_path: Path) -> Iterator[PipelineTest]:
    pipeline = Pipeline("shop")
    pipeline.stream(
        "events",
        schema="seen TIMESTAMP NOT NULL, who VARCHAR",
        event_time="seen",
        allowed_lateness="1 minute",
    )
    pipeline.table("counts", COUNTS, keep="2 hours")
    pipeline.table("lines", "SELECT seen, who FROM events", keep="2 hours")
    with PipelineTest(pipeline, folder=tmp_path / "pipeline", start=START) as test:
        for minute in range(0, 300, 20):
            at = f"2026-03-01T{12 + minute // 60}:{minute % 60:02d}:00"
            test.send("events", {"seen": at, "who": "ann"}, at=at)
            test.run()
        yield test


def test_windows_that_the_store_has_retired_stay_in_the_target(
    test: PipelineTest, target: FilesTarget
) -> None:
    options = target.replica(tables=("counts",))
    with following(test, options) as follower:
        catch_up(follower)
        for hour in (18, 19, 20):
            at = f"2026-03-01T{hour}:00:00"
            test.send("events", {"seen": at, "who": "ann"}, at=at)
            test.run()
            catch_up(follower)
    before = sorted_rows(target.rows("counts"))
    compute_again(test, "counts")
    assert len(test.table("counts")) < len(before)
    with following(test, options) as follower:
        catch_up(follower)
    assert sorted_rows(target.rows("counts")) == before


def test_a_reader_tells_what_was_computed_again_by_its_revision(
    test: PipelineTest, target: FilesTarget
) -> None:
    options = target.replica(mode="append", tables=("counts",))
    with following(test, options) as follower:
        catch_up(follower)
        late = {"seen": "2026-03-01T16:00:00", "who": "ann"}
        test.send("events", late, at="2026-03-01T16:00:00")  # a correction: its window is closed
        test.run()
        catch_up(follower)
    assert {row["_revision"] for row in target.rows("counts")} == {0, 1}
    compute_again(test, "counts")
    with following(test, options) as follower:
        catch_up(follower)
    newest = {row["window_start"]: row for row in sorted(target.rows("counts"), key=lambda r: r["_revision"])}
    for row in test.table("counts"):
        there = newest.get(row["window_start"])
        if there is not None and there["_revision"] > 1:
            assert there["n"] == row["n"]
    again = [row for row in target.rows("counts") if row["_revision"] > 1]
    assert again, "a reader cannot tell newer rows from older ones"
    corrected = [row for row in again if str(row["window_start"]).startswith("2026-03-01 16:00")]
    assert [row["n"] for row in corrected] == [2]


def test_windows_that_change_before_and_after_a_replica_sees_a_rebuild_have_one_newest_row(
    test: PipelineTest, target: FilesTarget
) -> None:
    options = target.replica(mode="append", tables=("counts",))

    def corrected(minute: int) -> None:
        at = f"2026-03-01T15:{minute}:00"
        test.send("events", {"seen": at, "who": "ann"}, at=at)  # its window is closed
        test.run()

    with following(test, options) as follower:
        catch_up(follower)
    compute_again(test, "counts")
    corrected(40)
    for minute in (40, 20, 40):
        with following(test, options) as follower:
            catch_up(follower)
        corrected(minute)
    with following(test, options) as follower:
        catch_up(follower)
    rows = [row for row in target.rows("counts") if "15:20" <= f"{row['window_start']:%H:%M}" <= "15:40"]
    told = sorted((f"{row['window_start']:%H:%M}", row["_revision"], row["n"]) for row in rows)
    first = 1_000_000
    assert told == [
        ("15:20", 0, 1), ("15:20", first, 1), ("15:20", first + 1, 2),
        ("15:40", 0, 1), ("15:40", first + 1, 2), ("15:40", first + 2, 3), ("15:40", first + 3, 4),
    ]  # fmt: skip


def test_rows_without_a_key_that_are_kept_for_a_while_are_not_doubled(
    test: PipelineTest, target: FilesTarget
) -> None:
    options = target.replica(tables=("lines",))
    with following(test, options) as follower:
        catch_up(follower)
    before = sorted_rows(target.rows("lines"))
    compute_again(test, "lines")
    with following(test, options) as follower:
        with pytest.raises(RefusedError, match="'lines' was computed again") as raised:
            catch_up(follower)
        assert "replicas adopt copy" in raised.value.fix
        assert "replicas rebuild copy" in raised.value.fix
        assert sorted_rows(target.rows("lines")) == before
        follower.resume(again="rebuild")
        catch_up(follower)
    assert sorted_rows(target.rows("lines")) == sorted_rows(test.table("lines"))


def test_rows_of_another_store_are_not_touched_by_a_store_that_computed_its_own_again(
    test: PipelineTest, target: FilesTarget, tmp_path: Path
) -> None:
    options = target.replica(tables=("counts",))
    with PipelineTest(test.pipeline, folder=tmp_path / "other", start=START) as other:
        other.send("events", {"seen": START, "who": "eve"}, at=START)
        other.run()
        with following(other, options) as follower:
            catch_up(follower)
    before = sorted_rows(target.rows("counts"))
    assert before
    compute_again(test, "counts")
    with following(test, options) as follower, pytest.raises(RefusedError, match="another store"):
        catch_up(follower)
    assert sorted_rows(target.rows("counts")) == before
