"""Views in a target: what of one cannot be copied is told, and what it never wrote stays."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from targets import FilesTarget

from headrace.declare import Pipeline
from headrace.errors import DeclarationError
from headrace.replicate import follower as follower_module
from headrace.replicate.protocol import Chunk, ReplicaWriter, write_chunks
from headrace.testing.pipeline_test import PipelineTest
from headrace.testing.replica_runs import Kept, catch_up, following, sorted_rows

START = "2026-03-01T12:00:00"
TOTALS = "SELECT who, kind, count(*) AS n, max(note) AS note FROM events GROUP BY who, kind"
OTHERS = "SELECT kind, sum(n) AS n FROM totals GROUP BY kind"


@pytest.fixture
def target(tmp_path: Path) -> FilesTarget:
    return FilesTarget(tmp_path / "target")


@contextmanager
def shop(folder: Path, view: str, key: str | tuple[str, ...] = "who") -> Iterator[PipelineTest]:
    """Run a pipeline with the view `odd`, and another one."""
    pipeline = Pipeline("shop")
    pipeline.stream(
        "events",
        schema="seen TIMESTAMP NOT NULL, who VARCHAR, kind VARCHAR, note VARCHAR",
        event_time="seen",
        allowed_lateness="1 minute",
    )
    pipeline.table("totals", TOTALS)
    pipeline.table("odd", view, key=key)
    pipeline.table("others", OTHERS, key="kind")
    pipeline.table("people", "SELECT who, count(*) AS n FROM events GROUP BY who")
    with PipelineTest(pipeline, folder=folder, start=START) as test:
        yield test


def send(test: PipelineTest, who: str, kind: str, note: str = "1") -> None:
    test.send("events", {"seen": START, "who": who, "kind": kind, "note": note}, at=START)
    test.run()


def same(test: PipelineTest, target: FilesTarget, *tables: str) -> None:
    for table in tables:
        assert sorted_rows(target.rows(table)) == sorted_rows(test.table(table)), table


def refused(follower: Any) -> DeclarationError:
    with pytest.raises(DeclarationError) as raised:
        catch_up(follower)
    return raised.value


def test_a_view_whose_key_stands_for_several_rows_is_not_copied_and_the_others_are(
    target: FilesTarget, tmp_path: Path
) -> None:
    with shop(tmp_path / "shop", "SELECT who, kind, n FROM totals") as test:
        send(test, "ann", "buy")
        told = Kept()
        with following(test, target.replica(), told=told) as follower:
            catch_up(follower)
            same(test, target, "totals", "odd", "others")
            before = sorted_rows(target.rows("odd"))
            send(test, "ann", "sell")
            said = str(refused(follower))
            assert "table 'odd': 1 of its keys (who) stand for more than one row" in said
            query = 'SELECT "who", count(*) FROM "odd" GROUP BY ALL HAVING count(*) > 1'
            assert f"`headrace sql '{query}'`" in said
            assert [row["who"] for row in test.query(query)] == ["ann"]
            assert "test_views.py:" in said
            assert "ann" not in said
            assert (follower.state, str(follower.error)) == ("following", said)
            assert [bool(copy.problem) for copy in follower.copies] == [False, True, False, False]
            same(test, target, "totals", "others")
            assert sorted_rows(target.rows("odd")) == before
            assert follower.reached == test.store.status().epoch
        assert told.states[:2] == ["starting", "following"]


def test_tables_are_sent_before_views_so_that_one_look_at_the_store_finds_them_all(
    target: FilesTarget, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[str] = []

    def noted(writer: ReplicaWriter, chunks: Sequence[Chunk]) -> None:
        sent.extend(chunk.table.name for chunk in chunks)
        write_chunks(writer, chunks)

    monkeypatch.setattr(follower_module, "write_chunks", noted)
    with shop(tmp_path / "shop", "SELECT who, n FROM totals") as test:
        send(test, "ann", "buy")
        with following(test, target.replica()) as follower:
            catch_up(follower)
    assert sent == ["totals", "people", "odd", "others"]


def test_null_is_one_key(target: FilesTarget, tmp_path: Path) -> None:
    with shop(tmp_path / "shop", "SELECT nullif(who, 'eve') AS who, n FROM totals") as test:
        send(test, "eve", "buy")
        send(test, "ann", "buy")
        with following(test, target.replica()) as follower:
            catch_up(follower)
            same(test, target, "odd")
            send(test, "eve", "sell")
            assert "1 of its keys" in str(refused(follower))


@pytest.mark.parametrize(
    ("view", "kind"),
    [
        ("SELECT who, kind, CAST(note AS INTEGER) AS n FROM totals", "Conversion"),
        ("SELECT who, kind, CASE WHEN note = 'secret' THEN error(note) ELSE note END AS n FROM totals", ""),
        ("SELECT who, kind, (SELECT note FROM totals) AS n FROM totals", "InvalidInput"),
    ],
)
def test_a_view_that_fails_on_a_value_is_told_without_it_and_the_others_are_copied(
    target: FilesTarget, tmp_path: Path, view: str, kind: str
) -> None:
    with shop(tmp_path / "shop", view, key="kind") as test:
        send(test, "ann", "buy")
        with following(test, target.replica()) as follower:
            catch_up(follower)
            before = sorted_rows(target.rows("odd"))
            assert before
            send(test, "eve", "sell", "secret")
            error = refused(follower)
            said = f"table 'odd': its query fails on data that the store holds (DuckDB says {kind}"
            assert said in str(error)
            assert "secret" not in str(error)
            assert error.__cause__ is None
            same(test, target, "totals", "others")
            assert sorted_rows(target.rows("odd")) == before
        with following(test, target.replica()) as follower:  # and of a run that begins with it
            assert "secret" not in str(refused(follower))
            same(test, target, "totals", "others")


def test_a_view_whose_query_was_mended_is_copied_by_the_next_run(target: FilesTarget, tmp_path: Path) -> None:
    view = "SELECT who, kind, CAST(note AS INTEGER) AS n FROM totals"
    with shop(tmp_path / "shop", view, "kind") as test:
        send(test, "ann", "buy", "a word")
        with following(test, target.replica()) as follower:
            refused(follower)
            assert target.rows("odd") == []
    with shop(tmp_path / "shop", view.replace("CAST", "TRY_CAST"), "kind") as test:
        with following(test, target.replica()) as follower:
            catch_up(follower)
            assert follower.error is None
        same(test, target, "totals", "odd", "others")


def test_a_view_that_fails_for_a_while_is_copied_by_the_same_run(target: FilesTarget, tmp_path: Path) -> None:
    view = "SELECT 1 AS one, CASE WHEN count(*) = 1 THEN error('odd') ELSE count(*) END AS n FROM totals"
    with shop(tmp_path / "shop", view, key="one") as test:
        send(test, "ann", "buy")
        with following(test, target.replica()) as follower:
            refused(follower)
            send(test, "bob", "buy")
            catch_up(follower)
            assert (follower.error, [copy.problem for copy in follower.copies]) == (None, [""] * 4)
            same(test, target, "totals", "odd", "others")


def test_a_view_with_too_many_rows_has_not_reached_what_it_does_not_hold(
    target: FilesTarget, tmp_path: Path
) -> None:
    with shop(tmp_path / "shop", "SELECT who, kind, n FROM totals", key=("who", "kind")) as test:
        send(test, "ann", "buy")
        with following(test, target.replica(view_rows_max=1)) as follower:
            catch_up(follower)
            reached = test.store.status().epoch
            send(test, "ann", "sell")
            catch_up(follower)
            test.send("events", {"seen": "2026-03-01T11:00:00", "who": "ann"}, at=START)  # changes no table
            test.run()
            catch_up(follower)
            assert {c.shape.name: (c.reached, bool(c.problem)) for c in follower.copies} == {
                "totals": (reached + 2, False),
                "odd": (reached, True),
                "others": (reached, True),
                "people": (reached + 2, False),
            }
