"""Append tables as data streams of a real server: twice is once, rolled over or not."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from search_target import SearchTarget

from headrace.errors import ProfileError, RefusedError
from headrace.replicate.elasticsearch.streams import time_columns
from headrace.replicate.protocol import NamedColumn, Position, Refusal, TableShape, Task, version_of
from headrace.testing import PipelineTest
from headrace.testing.replica_losses import Losing
from headrace.testing.replica_runs import catch_up, feed, following, shop, sorted_rows
from headrace.testing.replica_writes import FIRST, THINGS, chunk, opened, thing
from headrace.testing.replicas import START

STREAM: dict[str, Any] = {"mode": "append", "data_streams": {THINGS.name: "seen"}}
TABLES: dict[str, Any] = {
    "mode": "append",
    "tables": ("all_rows", "revenue"),
    "data_streams": {"all_rows": "seen", "revenue": "window_end"},
}


@pytest.fixture
def target(opensearch_server: str) -> Iterator[SearchTarget]:
    made = SearchTarget(opensearch_server)
    yield made
    made.close()


@pytest.fixture
def test(tmp_path: Path) -> Iterator[PipelineTest]:
    with PipelineTest(shop(), folder=tmp_path / "pipeline", start=START, cuts=5) as made:
        feed(made, 0, 40)
        yield made


def roll_over(target: SearchTarget, table: str) -> None:
    done = target.http.post(f"/{target.index(table)}/_rollover")
    assert done.status_code == 200, done.text


def same(test: PipelineTest, target: SearchTarget) -> None:
    """Every row once, and every window that is closed."""
    assert sorted_rows(target.rows("all_rows")) == sorted_rows(test.table("all_rows"))
    closed = next(t for t in test.store.status().tables if t.table == "revenue").closed_through
    assert closed is not None
    windows = [row for row in test.table("revenue") if row["window_end"] <= closed]
    assert sorted_rows(target.rows("revenue")) == sorted_rows(windows)


def test_rows_are_documents_of_a_stream_with_their_time(target: SearchTarget) -> None:
    index = target.index(THINGS.name)
    with opened(target, **STREAM) as writer:
        assert writer.cursors() == {}
        writer.take(THINGS.name, None, FIRST)
        writer.write(chunk([thing("ann", 1), thing(None, 2)], epoch=1))
        assert writer.cursors()[THINGS.name].position == Position.at(1)
    facts = target.http.get(f"/_data_stream/{index}").json()["data_streams"][0]
    assert facts["template"] == f"headrace-{index}"
    assert [row["who"] for row in target.rows(THINGS.name)] == ["ann", None]
    asked = {
        "query": {"range": {"@timestamp": {"gte": "2026-03-01T12:00:00Z", "lte": "2026-03-01T12:00:00Z"}}}
    }
    assert target.http.post(f"/{index}/_count", json=asked).json()["count"] == 2


@pytest.mark.parametrize("rolled_over", [False, True])
def test_a_chunk_that_comes_again_adds_nothing(target: SearchTarget, rolled_over: bool) -> None:
    both = [thing("ann", 1), thing("bob", 1)]
    with opened(target, **STREAM) as writer:
        writer.take(THINGS.name, None, FIRST)
        writer.write(chunk([thing("eve", 1)], epoch=1))
        saved = writer._saved(target.index(THINGS.name))  # type: ignore[attr-defined]
        writer.write(chunk(both, epoch=2))
        # As if the run had died before the cursor was saved.
        now = writer._saved(target.index(THINGS.name))  # type: ignore[attr-defined]
        writer._save(THINGS.name, saved.cursor, now, saved.standing)  # type: ignore[attr-defined]
    for _ in range(2 if rolled_over else 0):
        roll_over(target, THINGS.name)
    with opened(target, **STREAM) as writer:
        writer.write(chunk([*both, thing("zoe", 1)], epoch=3))
    assert sorted(row["who"] for row in target.rows(THINGS.name)) == ["ann", "bob", "eve", "zoe"]


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.soak)])
def test_a_lost_connection_and_a_roll_over_change_nothing(
    test: PipelineTest, target: SearchTarget, seed: int
) -> None:
    chance = random.Random(seed)
    lost: Any = Losing(target.replica(chunk_rows_max=5, **TABLES), lambda _: chance.random() < 0.1)
    for first in (40, 64, 88):
        while True:
            with following(test, lost) as follower:
                try:
                    catch_up(follower)
                    break
                except RefusedError:
                    for table in ("all_rows", "revenue"):
                        target.http.post(f"/{target.index(table)}/_rollover")  # it may not be there yet
        feed(test, first, 24)
    lost.lose = lambda _: False
    with following(test, lost) as follower:
        catch_up(follower)
    assert lost.losses > 2
    facts = target.http.get(f"/_data_stream/{target.index('all_rows')}").json()["data_streams"][0]
    assert facts["generation"] > 2
    same(test, target)


@pytest.mark.soak
def test_what_is_told_to_rebuild_holds_every_row_once(test: PipelineTest, target: SearchTarget) -> None:
    for first in range(40, 160, 24):
        feed(test, first, 24)
    with following(test, target.replica(chunk_rows_max=30, **TABLES)) as follower:
        catch_up(follower)
        roll_over(target, "all_rows")
        for _ in range(2):
            follower.resume(again="rebuild")
            catch_up(follower)
            same(test, target)
    assert {row["_headrace_version"] >= version_of(3, 0) for row in target.rows("all_rows")} == {True}


@pytest.mark.soak
def test_a_stream_that_was_deleted_is_made_and_filled_anew(test: PipelineTest, target: SearchTarget) -> None:
    options = target.replica(**TABLES)
    with following(test, options) as follower:
        catch_up(follower)
        target.http.delete(f"/_data_stream/{target.index('all_rows')}")
        feed(test, 40, 24)
        catch_up(follower)
    same(test, target)
    # Between two runs; the server makes it again by the template for whoever writes to it.
    index = target.index("all_rows")
    target.http.delete(f"/_data_stream/{index}")
    target.http.put(f"/_data_stream/{index}")
    with following(test, options) as follower:
        catch_up(follower)
    same(test, target)


def test_a_stream_of_which_retention_took_out_the_oldest_goes_on(target: SearchTarget) -> None:
    with opened(target, **STREAM) as writer:
        writer.take(THINGS.name, None, FIRST)
        writer.write(chunk([thing("ann", 1)], epoch=1))
    roll_over(target, THINGS.name)
    stream = target.http.get(f"/_data_stream/{target.index(THINGS.name)}").json()["data_streams"][0]
    target.http.delete(f"/{stream['indices'][0]['index_name']}")
    with opened(target, **STREAM) as writer:
        assert writer.cursors()[THINGS.name].position == Position.at(1)
        writer.write(chunk([thing("bob", 1)], epoch=2))
    assert [row["who"] for row in target.rows(THINGS.name)] == ["bob"]


def test_a_column_that_is_new_is_added_and_what_an_operator_set_in_the_template_stays(
    target: SearchTarget,
) -> None:
    with opened(target, **STREAM) as writer:
        writer.take(THINGS.name, None, FIRST)
        writer.write(chunk([thing("ann", 1)], epoch=1))
    path = f"/_index_template/headrace-{target.index(THINGS.name)}"
    there = target.http.get(path).json()["index_templates"][0]["index_template"]
    there["template"]["settings"]["index"]["refresh_interval"] = "7s"
    assert target.http.put(path, json=there).status_code == 200
    wider = replace(THINGS, columns=(*THINGS.columns, NamedColumn("extra", "BIGINT")))
    with opened(target, wider, **STREAM) as writer:
        writer.write(chunk([{**thing("bob", 2), "extra": 5}], epoch=2, shape=wider))
    roll_over(target, THINGS.name)
    with opened(target, wider, **STREAM) as writer:
        writer.write(chunk([{**thing("eve", 2), "extra": 6}], epoch=3, shape=wider))
    assert {row["who"]: row["extra"] for row in target.rows(THINGS.name)} == {"ann": None, "bob": 5, "eve": 6}
    asked = {"query": {"terms": {"extra": [5, 6]}}}
    assert target.http.post(f"/{target.index(THINGS.name)}/_count", json=asked).json()["count"] == 2
    settings = target.http.get(path).json()["index_templates"][0]["index_template"]["template"]["settings"]
    assert settings["index"]["refresh_interval"] == "7s"


def test_a_row_without_a_time_is_set_aside(target: SearchTarget) -> None:
    kept: list[Refusal] = []
    task = Task(replica="copy", pipeline="tests", tables=(THINGS,), set_aside=kept.extend)
    writer = target.replica(**STREAM).open(task)
    writer.take(THINGS.name, None, FIRST)
    writer.write(chunk([thing("ann", 1), {**thing("bob", 1), "seen": None}], epoch=1))
    writer.close()
    assert [row["who"] for row in target.rows(THINGS.name)] == ["ann"]
    assert ['"bob"' in each.key for each in kept] == [True]


def test_a_replaced_writer_is_refused(target: SearchTarget) -> None:
    with opened(target, **STREAM) as old, opened(target, **STREAM) as new:
        old.take(THINGS.name, None, FIRST)
        new.take(THINGS.name, FIRST, replace(FIRST, generation=2))
        with pytest.raises(RefusedError, match="taken over"):
            old.write(chunk([thing("zombie", 1)], epoch=1))
    assert target.rows(THINGS.name) == []


def test_an_index_in_the_place_of_a_stream_is_refused(target: SearchTarget) -> None:
    with opened(target):
        pass
    with pytest.raises(RefusedError, match="is an index") as raised, opened(target, **STREAM):
        pass
    assert "index_names" in raised.value.fix


def test_a_server_without_data_streams_is_refused_with_what_to_use(elasticsearch_server: str) -> None:
    plain = SearchTarget(elasticsearch_server)  # its free distribution came without them
    try:
        with pytest.raises(RefusedError, match="no data streams") as raised, opened(plain, **STREAM):
            pass
        assert "OpenSearch" in raised.value.fix
    finally:
        plain.close()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"mode": "update", "data_streams": {"t": "at"}}, "cannot change"),
        ({"mode": "append", "data_streams": {"other": "at"}}, "does not copy"),
        ({"mode": "append", "data_streams": {"t": "n"}}, "'n' is no instant"),
    ],
)
def test_what_can_be_no_stream_is_refused_before_anything_is_connected(
    options: dict[str, Any], said: str
) -> None:
    shape = TableShape(
        name="t",
        columns=(NamedColumn("at", "TIMESTAMP WITH TIME ZONE"), NamedColumn("n", "BIGINT")),
        key=(),
    )
    replica = SearchTarget("http://127.0.0.1:1").replica(**options)
    with pytest.raises(ProfileError, match=said):
        time_columns(replica, (shape,), "copy")
