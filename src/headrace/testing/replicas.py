"""What every replica has to pass, ours and a stranger's: a test class to subclass.

    class TestMine(ReplicaConformance):
        @pytest.fixture
        def target(self, tmp_path):
            return MyTarget(tmp_path)          # a ReplicaTarget, empty

The tests run a real pipeline beside the replica and read the target back with its own client.
"""

from __future__ import annotations

import random
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import pytest

from headrace.declare import Pipeline
from headrace.errors import RefusedError, TransientError
from headrace.replicate.options import CommonOptions
from headrace.testing.pipeline_test import PipelineTest
from headrace.testing.replica_losses import Losing, follow_until_it_holds
from headrace.testing.replica_runs import (
    Kept,
    catch_up,
    compute_again,
    feed,
    following,
    pass_hours,
    shop,
    short,
    sorted_rows,
    tell_expired,
    wait_for,
)
from headrace.testing.replica_writes import WriterConformance

__all__ = ["ReplicaConformance", "ReplicaTarget"]

START = "2026-03-01T12:00:00"


class ReplicaTarget(Protocol):
    """A target of the tests' own, empty at first."""

    def replica(self, **options: Any) -> CommonOptions:
        """Return the description of a replica into it, with these options beside what it needs."""

    def rows(self, table: str) -> list[dict[str, Any]]:
        """Return all rows of a table, read with the target's own client; none when it is not there."""

    def refuse(self, table: str) -> bool:
        """Let the table take no row whose column `n` is 13; False when the target has no such rules."""

    def differ(self, table: str) -> None:
        """Make the column `n` of a table another type, as if somebody else had made the table."""

    @contextmanager
    def outage(self) -> Iterator[None]:
        """Let the target be down during the block; skip the test where that cannot be."""


class ReplicaConformance(WriterConformance):
    """The rules of the protocol, as tests. A subclass gives the fixture `target`."""

    def shop(self) -> Pipeline:
        """Return the pipeline that runs beside the replica."""
        return shop(null_keys=self.null_keys)

    @pytest.fixture
    def test(self, tmp_path: Path) -> Iterator[PipelineTest]:
        """A pipeline with a table of every class, and 40 events that were read."""
        with PipelineTest(self.shop(), folder=tmp_path / "pipeline", start=START, cuts=5) as test:
            feed(test, 0, 40)
            yield test

    def test_every_class_of_table_is_the_same_in_the_target(
        self, test: PipelineTest, target: ReplicaTarget
    ) -> None:
        with following(test, target.replica(chunk_rows_max=40)) as follower:
            catch_up(follower)
            same(test, target)
            for first in range(40, 112, 24):
                feed(test, first, 24)
                follower.wake()
            catch_up(follower)
            same(test, target)

    def test_a_follower_goes_on_where_the_last_one_ended(
        self, test: PipelineTest, target: ReplicaTarget
    ) -> None:
        for first in range(40, 112, 24):
            with following(test, target.replica()) as follower:
                catch_up(follower)
                sent = sum(copy.rows_sent for copy in follower.copies if copy.plan.view_sql == "")
            same(test, target)
            feed(test, first, 24)
        assert sent < 120, "rows that were there already were sent again"

    @pytest.mark.parametrize("seed", range(3))
    def test_a_connection_lost_before_or_after_any_call_changes_nothing(
        self, test: PipelineTest, target: ReplicaTarget, seed: int
    ) -> None:
        names = ("all_rows", "busy", "visits", "best")
        chance = random.Random(seed)  # noqa: S311 - repeatable, not secret
        losing: Any = Losing(target.replica(chunk_rows_max=10, tables=names), lambda _: chance.random() < 0.1)
        for first in (40, 64, 88):
            follow_until_it_holds(test, losing)
            feed(test, first, 24)
        losing.lose = lambda _: False
        follow_until_it_holds(test, losing)
        assert losing.losses > 2
        same(test, target, names)

    def test_a_connection_lost_before_and_after_each_call_in_turn_changes_nothing(
        self, test: PipelineTest, target: ReplicaTarget
    ) -> None:
        names, seen = ("all_rows", "busy", "visits", "best"), set[str]()

        def first_time(place: str) -> bool:
            new = place not in seen
            seen.add(place)
            return new

        losing: Any = Losing(target.replica(chunk_rows_max=20, tables=names), first_time)
        for again in (None, "rebuild"):
            follow_until_it_holds(test, losing, again=again)
            same(test, target, names)
            calls = {place.split(" ")[1] for place in seen}
            assert calls == {"open", "cursors", "take", "write", "sweep"}
            seen.clear()
            feed(test, 40, 24)

    def test_rows_of_another_store_are_not_touched_until_it_is_said(
        self, test: PipelineTest, target: ReplicaTarget, tmp_path: Path
    ) -> None:
        with following(test, target.replica()) as follower:
            catch_up(follower)
        with PipelineTest(self.shop(), folder=tmp_path / "other", start=START) as other:
            feed(other, 0, 20, seed=5)
            with (
                following(other, target.replica()) as follower,
                pytest.raises(RefusedError, match="another store") as raised,
            ):
                catch_up(follower)
            assert "replicas adopt copy" in raised.value.fix
            assert "replicas rebuild copy" in raised.value.fix
            same(test, target)
            with following(other, target.replica(), again="rebuild") as follower:
                catch_up(follower)
            same(other, target)

    def test_a_store_that_was_set_back_is_refused_and_a_rebuild_makes_the_target_its_equal(
        self, target: ReplicaTarget, tmp_path: Path
    ) -> None:
        folder = tmp_path / "pipeline"
        with PipelineTest(self.shop(), folder=folder, start=START) as test:
            feed(test, 0, 30)
        shutil.copy(folder / "store.duckdb", tmp_path / "backup")
        with PipelineTest(self.shop(), folder=folder, start=START) as test:
            feed(test, 30, 40)
            with following(test, target.replica()) as follower:
                catch_up(follower)
        shutil.copy(tmp_path / "backup", folder / "store.duckdb")
        with PipelineTest(self.shop(), folder=folder, start=START) as test:
            with (
                following(test, target.replica()) as follower,
                pytest.raises(RefusedError, match="set back"),
            ):
                catch_up(follower)
            with following(test, target.replica(), again="rebuild") as follower:
                catch_up(follower)
            same(test, target)

    def test_adopting_writes_over_the_target_and_takes_nothing_out(
        self, test: PipelineTest, target: ReplicaTarget, tmp_path: Path
    ) -> None:
        with following(test, target.replica(tables=("totals",))) as follower:
            catch_up(follower)
        before = {row["who"] for row in target.rows("totals")}
        with PipelineTest(self.shop(), folder=tmp_path / "other", start=START) as other:
            feed(other, 0, 10)
            kept = Kept()
            with following(other, target.replica(tables=("totals",)), told=kept, again="adopt") as follower:
                catch_up(follower)
            assert kept.begun.is_set()
            rows = target.rows("totals")
            assert {row["who"] for row in rows} == before
            mine = {str(row["who"]): row for row in sorted_rows(other.table("totals"))}
            there = {str(row["who"]): row for row in sorted_rows(rows)}
            assert len(mine) < len(there)
            assert {who: there[who] for who in mine} == mine

    def test_adopting_keeps_rows_of_a_view_that_this_store_never_had(
        self, test: PipelineTest, target: ReplicaTarget, tmp_path: Path
    ) -> None:
        options = target.replica(tables=("best",))
        with following(test, options) as follower:
            catch_up(follower)
        history = {row["kind"] for row in target.rows("best")}
        with PipelineTest(self.shop(), folder=tmp_path / "other", start=START) as other:
            feed(other, 0, 1)
            mine = {row["kind"] for row in other.table("best")}
            assert history - mine
            for again in ("adopt", None, None):  # and the view is sent as a whole whenever a run begins
                with following(other, options, again=again) as follower:
                    catch_up(follower)
                assert {row["kind"] for row in target.rows("best")} == history | mine
            with following(other, options, again="rebuild") as follower:
                catch_up(follower)
            same(other, target, ("best",))

    def test_a_second_follower_takes_the_target_over_and_the_first_one_stops_writing(
        self, test: PipelineTest, target: ReplicaTarget
    ) -> None:
        with following(test, target.replica()) as first:
            catch_up(first)
            with following(test, target.replica()) as second:
                catch_up(second)
                feed(test, 40, 24)
                with pytest.raises(RefusedError, match="taken over"):
                    catch_up(first)
                catch_up(second)
                same(test, target)

    def test_a_row_that_the_target_refuses_is_set_aside_and_the_others_are_written(
        self, test: PipelineTest, target: ReplicaTarget
    ) -> None:
        kept = Kept()
        with following(test, target.replica(tables=("totals",)), told=kept) as follower:
            catch_up(follower)
            if not target.refuse("totals"):
                pytest.skip("this target takes every row")
            at = "2026-03-01T12:10:00"
            odd = {"id": "odd", "seen": at, "who": "odd one", "n": 13}
            even = [{"id": f"even{i}", "seen": at, "who": f"even {i}", "n": 20 + i} for i in range(20)]
            test.send("events", [*even[:10], odd, *even[10:]], at=at)
            test.run()
            catch_up(follower)
        (refusal,) = kept.refusals
        assert refusal.table == "totals"
        assert "odd one" in refusal.key
        assert refusal.reason
        wanted = [row for row in test.table("totals") if row["who"] != "odd one"]
        assert sorted_rows(target.rows("totals")) == sorted_rows(wanted)

    def test_a_target_that_is_down_holds_nothing_up_and_catches_up_afterwards(
        self, test: PipelineTest, target: ReplicaTarget
    ) -> None:
        with following(test, target.replica()) as follower:
            catch_up(follower)
            with target.outage():
                feed(test, 40, 24)  # returns: the pipeline is not held up
                follower.wake()
                wait_for(lambda: follower.state == "waiting", "the follower sees that the target is down")
                assert isinstance(follower.error, TransientError)
                assert follower.reached < test.store.status().epoch
                feed(test, 64, 24)
            catch_up(follower)
            same(test, target)

    def test_a_paused_replica_sends_nothing_until_it_is_resumed(
        self, test: PipelineTest, target: ReplicaTarget
    ) -> None:
        with following(test, target.replica()) as follower:
            catch_up(follower)
            before = sorted_rows(target.rows("totals"))
            follower.pause()
            wait_for(lambda: follower.state == "paused", "the follower pauses")
            feed(test, 40, 24)
            follower.wake()
            catch_up(follower)  # a paused replica is not waited for
            assert sorted_rows(target.rows("totals")) == before
            follower.resume()
            wait_for(lambda: follower.state == "following", "the follower goes on")
            catch_up(follower)
            same(test, target)

    def test_in_append_mode_a_window_is_sent_once_when_closed_and_again_when_corrected(
        self, test: PipelineTest, target: ReplicaTarget
    ) -> None:
        options = target.replica(mode="append", tables=("revenue",), chunk_rows_max=2)
        with following(test, options) as follower:
            catch_up(follower)
            for first in range(40, 160, 24):
                feed(test, first, 24)
                catch_up(follower)
            closed = next(t for t in test.store.status().tables if t.table == "revenue").closed_through
            assert closed is not None
            wanted = [row for row in test.table("revenue") if row["window_end"] <= closed]
            assert sorted_rows(target.rows("revenue")) == sorted_rows(wanted)
            assert {row["_revision"] for row in target.rows("revenue")} == {0}
            # A clock that steps back: the record is accepted for a window that is closed.
            late = {"id": "late", "seen": START, "who": "u1", "kind": "buy", "n": 1}
            test.send("events", late, at=START)
            test.run()
            catch_up(follower)
            again = [row for row in target.rows("revenue") if row["_revision"] == 1]
            first_of = next(row for row in test.table("revenue") if row["kind"] == "buy")
            assert sorted_rows(again) == sorted_rows([first_of])
            assert len(target.rows("revenue")) == len(wanted) + 1

    def test_in_append_mode_what_is_told_to_rebuild_holds_every_window_once(
        self, test: PipelineTest, target: ReplicaTarget
    ) -> None:
        options = target.replica(mode="append", tables=("revenue",), chunk_rows_max=7)
        with following(test, options) as follower:
            for first in range(40, 160, 24):
                feed(test, first, 24)
            catch_up(follower)
            before = sorted_rows(target.rows("revenue"))
            last = max(row["_revision"] for row in target.rows("revenue"))
            assert before
            follower.resume(again="rebuild")
            catch_up(follower)
            assert sorted_rows(target.rows("revenue")) == before
            assert min(row["_revision"] for row in target.rows("revenue")) > last, "newer, and looks older"

    def test_tables_that_the_store_computed_again_are_the_same_in_the_target(
        self, test: PipelineTest, target: ReplicaTarget
    ) -> None:
        with following(test, target.replica()) as follower:
            catch_up(follower)
        compute_again(test, "revenue", "latest", "all_rows")
        with following(test, target.replica()) as follower:
            catch_up(follower)
            sent = {copy.shape.name: copy.rows_sent for copy in follower.copies}
        same(test, target)
        assert sent["revenue"] > 0
        assert sent["totals"] == 0, "a table that was not computed again was sent again"

    def test_rows_that_expire_stay_or_leave_the_target_as_declared(
        self, target: ReplicaTarget, tmp_path: Path
    ) -> None:
        with PipelineTest(short(), folder=tmp_path / "short", start=START) as test:
            names = [table.name for table in test.pipeline.tables]
            pass_hours(test, 0, 2)
            with following(test, target.replica()) as follower:
                catch_up(follower)
                pass_hours(test, 2, 3)
                catch_up(follower)
            assert len(target.rows("counts")) > len(test.table("counts")), "nothing expired, or it left"
            tell_expired(test, copy=names)
            options = target.replica(expired="delete", chunk_rows_max=25)
            with following(test, options) as follower:
                catch_up(follower)
                same(test, target)  # also what had expired before it was declared
                sent = {copy.shape.name: copy.rows_sent for copy in follower.copies}
                first = min(row["window_start"] for row in sorted_rows(test.table("counts")))
                pass_hours(test, 3, 4)
                catch_up(follower)
                same(test, target)
                assert min(row["window_start"] for row in sorted_rows(target.rows("counts"))) > first
                again = {copy.shape.name: copy.rows_sent for copy in follower.copies}
                assert again["visits"] - sent["visits"] <= 10, "what was there already was sent again"
            pass_hours(test, 4, 5)  # nobody follows
            with following(test, options) as follower:
                catch_up(follower)
                same(test, target)
                follower.resume(again="rebuild")
                catch_up(follower)
            same(test, target)
            compute_again(test, "counts", "latest")
            with following(test, options) as follower:
                catch_up(follower)
            same(test, target)

    @pytest.mark.slow
    def test_a_hundred_thousand_rows_are_caught_up_in_bounded_chunks(
        self, target: ReplicaTarget, tmp_path: Path
    ) -> None:
        bulk(self.shop(), target, tmp_path, 100_000)

    @pytest.mark.soak
    def test_a_million_rows_are_caught_up_in_bounded_chunks(
        self, target: ReplicaTarget, tmp_path: Path
    ) -> None:
        bulk(self.shop(), target, tmp_path, 1_000_000)


def same(test: PipelineTest, target: ReplicaTarget, names: Sequence[str] = ()) -> None:
    """Assert that the target holds what the store holds, table by table."""
    for name in names or [table.name for table in test.pipeline.tables]:
        there, here = sorted_rows(target.rows(name)), sorted_rows(test.table(name))
        assert there == here, f"table '{name}' differs"


def bulk(pipeline: Pipeline, target: ReplicaTarget, folder: Path, count: int) -> None:
    """Copy that many rows to an empty target and read back how many there are, and that each is one."""
    with PipelineTest(pipeline, folder=folder / "bulk", start=START) as test:
        for first in range(0, count, 50_000):
            many = [
                {"id": f"e{i}", "seen": START, "who": f"u{i}", "n": i} for i in range(first, first + 50_000)
            ]
            test.send("events", many, at=START)
        test.run()
        with following(test, target.replica(tables=("all_rows", "totals"))) as follower:
            catch_up(follower, seconds=600)
        for table in ("all_rows", "totals"):
            rows = target.rows(table)
            assert len(rows) == count
            assert len({row["who"] for row in rows}) == count
