"""How far replicas are behind, asked of the store, whatever it has been through; and what is told of them."""

import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

import headrace as hr
from headrace.errors import DeclarationError, Problem, TransientError
from headrace.operate.project import Home, find_home
from headrace.operate.replicas import Replicas, replica_states, tell_stopped
from headrace.sql import plan_pipeline
from headrace.store import Store

STORE = SimpleNamespace(path="s.duckdb")


def test_the_lag_of_replicas_is_right_behind_more_epochs_than_a_question_may_have_rows(
    tmp_path: Path,
) -> None:
    pipeline = hr.Pipeline("p")
    pipeline.stream("events", schema="id VARCHAR, seen TIMESTAMP NOT NULL", event_time="seen")
    store = Store.open(tmp_path / "s.duckdb", plan_pipeline(pipeline), identities={"events": "log-1"})
    options = SimpleNamespace(kind="stdout")
    replicas = {"near": options, "far": options, "new": options, "there": options, "near2": options}
    home = Home(tmp_path, cast("Any", SimpleNamespace(replicas=replicas, store=STORE)))
    states = [
        {"replica": name, "kind": "stdout", "state": "following", "epoch": epoch, "tables": []}
        for name, epoch in (("near", 1_000_098), ("near2", 1_000_098), ("far", 100), ("there", 1_000_100))
    ]
    none = replica_states(home, states, store)
    assert [(one["lag_epochs"], one["lag_seconds"], one["store_epoch"]) for one in none] == [(0, 0.0, 0)] * 5
    first = datetime.now(UTC) - timedelta(hours=1)
    store.connection.execute(
        "INSERT INTO _headrace.epochs SELECT range, CASE range WHEN 1000099 THEN ?::TIMESTAMPTZ "
        "ELSE now() END, 1, 0.1 FROM range(1, 1000101)",
        [first],
    )
    found = {one["replica"]: one for one in replica_states(home, states, store)}
    store.close()
    assert {name: one["lag_epochs"] for name, one in found.items()} == {
        "near": 2, "near2": 2, "far": 1_000_000, "new": 1_000_100, "there": 0,
    }  # fmt: skip
    assert {one["store_epoch"] for one in found.values()} == {1_000_100}
    assert [found[name]["lag_seconds"] > 3_599 for name in ("near", "far", "there")] == [True, True, False]


def told_by(tmp_path: Path) -> tuple[Replicas, Any, list[str], list[tuple[str, str, Any]]]:
    """Replicas without a run, a follower to be shown to them, and what they tell: notices and lines."""
    home = Home(tmp_path, cast("Any", SimpleNamespace(replicas={}, store=STORE)))
    lines: list[tuple[str, str, Any]] = []

    def line(event: str, **facts: Any) -> None:
        lines.append((event, facts["state"], facts.get("why")))

    journal = cast("Any", SimpleNamespace(info=line, warning=line))
    replicas = Replicas(home, cast("Any", None), cast("Any", None), journal)
    notices: list[str] = []
    replicas.on_notice = notices.append
    follower = SimpleNamespace(
        name="copy", options=SimpleNamespace(kind="files"), state="following", error=None, reached=1,
        rows_refused=0, copies=[],
    )  # fmt: skip
    return replicas, follower, notices, lines


def test_a_target_that_takes_a_chunk_at_each_try_writes_no_line_for_each(tmp_path: Path) -> None:
    replicas, follower, notices, lines = told_by(tmp_path)
    away = TransientError("the target is away")
    for state, error in (
        ("starting", None),
        *[("waiting", away), ("starting", None)] * 20,
        ("following", None),
    ):
        follower.state, follower.error = state, error
        replicas.state(follower)
    assert lines == [
        ("replica", "starting", None),
        ("replica", "waiting", "the target is away"),
        ("replica", "following", None),
    ]
    assert notices == ["replica 'copy' waiting: the target is away", "replica 'copy' goes on"]


def test_that_a_view_is_not_copied_is_told_once_and_so_is_that_it_is_again(tmp_path: Path) -> None:
    replicas, follower, notices, lines = told_by(tmp_path)
    follower.error = DeclarationError(
        [Problem("pipeline.py", 7, "table 'best'", "it is not copied", "mend it")]
    )
    said = "pipeline.py:7: table 'best': it is not copied - mend it"
    replicas.state(follower)
    replicas.state(follower)
    assert (notices, lines) == ([f"replica 'copy' following: {said}"], [("replica", "following", said)])
    follower.error = None
    replicas.state(follower)
    assert notices[1:] == ["replica 'copy' goes on"]


TWO_STORES = """
[profiles.one]
streams.events = { log = "embedded" }
replicas.copy = { kind = "files", path = "copy-one" }

[profiles.two]
store.path = "two.duckdb"
streams.events = { log = "embedded" }
replicas.copy = { kind = "files", path = "copy-two" }
"""


def homes(folder: Path, replica: str = "copy") -> tuple[Home, Home]:
    """A project whose two profiles have a store each, and a replica of the same name."""
    (folder / "pipeline.py").touch()
    (folder / "headrace.toml").write_text(TWO_STORES.replace("replicas.copy", f"replicas.{replica}"))
    return find_home(folder, profile="one"), find_home(folder, profile="two")


@contextmanager
def replicas_of(home: Home, *, epochs: int = 0) -> Iterator[tuple[Replicas, Store]]:
    """The replicas of a run that did so many epochs; they are not started, so no target was asked yet."""
    pipeline = hr.Pipeline("p")
    pipeline.stream("events", schema="id VARCHAR, seen TIMESTAMP NOT NULL", event_time="seen")
    pipeline.table("clean", "SELECT id FROM events")
    plan = plan_pipeline(pipeline)
    home.store_path.parent.mkdir(exist_ok=True)
    store = Store.open(home.store_path, plan, identities={"events": "log-1"})
    try:
        store.connection.execute(
            f"INSERT INTO _headrace.epochs SELECT range, now(), 1, 0.1 FROM range(1, {epochs + 1})"
        )
        journal = cast("Any", SimpleNamespace(info=lambda *_, **__: None, warning=lambda *_, **__: None))
        yield Replicas(home, plan, store, journal), store
    finally:
        store.close()


def left_by_a_run(home: Home, epoch: int) -> None:
    """A run's replica has come that far, and its state was written down."""
    with replicas_of(home) as (replicas, _):
        (follower,) = replicas.followers
        for copy in follower.copies:
            copy.reached = epoch
        follower.state = "following"
        replicas.state(follower)


def told_of(home: Home, *, epochs: int, running: bool) -> tuple[int, int]:
    """How far the replica is said to be, and how many epochs it is behind."""
    with replicas_of(home, epochs=epochs) as (replicas, store):
        states = replicas.states() if running else None
        (found,) = replica_states(home, states, store)
        assert "store_id" not in found
        return found["epoch"], found["lag_epochs"]


@pytest.mark.parametrize("running", [False, True])
def test_how_far_a_replica_is_stays_known_for_the_store_that_it_copies(tmp_path: Path, running: bool) -> None:
    home, _ = homes(tmp_path)
    left_by_a_run(home, 3)
    assert told_of(home, epochs=5, running=running) == (3, 2)


@pytest.mark.parametrize("running", [False, True])
def test_a_store_that_was_made_anew_has_a_replica_that_is_behind_by_all_of_it(
    tmp_path: Path, running: bool
) -> None:
    home, _ = homes(tmp_path)
    left_by_a_run(home, 5_000)
    home.store_path.unlink()
    assert told_of(home, epochs=5, running=running) == (0, 5)


@pytest.mark.parametrize("running", [False, True])
def test_a_replica_of_the_same_name_that_copies_another_store_says_nothing_about_this_one(
    tmp_path: Path, running: bool
) -> None:
    one, two = homes(tmp_path)
    left_by_a_run(one, 5_000)
    assert told_of(two, epochs=5, running=running) == (0, 5)


def obeyed(home: Home) -> tuple[bool, str | None]:
    """What the replica of the next run does: whether it pauses, and how it copies again."""
    with replicas_of(home) as (replicas, _):
        (follower,) = replicas.followers
        return follower._paused, follower._again


def test_what_a_replica_is_told_is_told_to_the_one_of_that_store_alone(tmp_path: Path) -> None:
    one, two = homes(tmp_path)
    tell_stopped(one, "copy", "rebuild")
    tell_stopped(two, "copy", "pause")
    assert (obeyed(one), obeyed(two)) == ((False, "rebuild"), (True, None))
    with replicas_of(one) as (replicas, _):
        replicas.begun_again(replicas.followers[0])
    assert (obeyed(one), obeyed(two)) == ((False, None), (True, None))


@pytest.mark.parametrize("name", ["copy", "told", "stores"])
def test_what_a_replica_is_told_outlives_a_run_whatever_its_name(tmp_path: Path, name: str) -> None:
    home, _ = homes(tmp_path, name)
    tell_stopped(home, name, "pause")
    left_by_a_run(home, 3)
    assert obeyed(home) == (True, None)
    assert told_of(home, epochs=5, running=False) == (3, 2)


@pytest.mark.parametrize(
    "written", [".headrace/store.duckdb", "./data/../.headrace/store.duckdb", "{}/.headrace/store.duckdb"]
)
def test_what_a_replica_is_told_is_told_to_the_store_however_profiles_write_its_path(
    tmp_path: Path, written: str
) -> None:
    (tmp_path / "data").mkdir()
    left_out, _ = homes(tmp_path)
    tell_stopped(left_out, "copy", "pause")
    settings = tmp_path / "headrace.toml"
    settings.write_text(settings.read_text().replace("two.duckdb", written.format(tmp_path)))
    same = find_home(tmp_path, profile="two")
    assert obeyed(same) == (True, None)
    tell_stopped(same, "copy", "rebuild")
    assert obeyed(left_out) == (False, "rebuild")


def test_what_a_replica_is_told_moves_with_the_project(tmp_path: Path) -> None:
    (tmp_path / "before").mkdir()
    _, two = homes(tmp_path / "before")
    tell_stopped(two, "copy", "pause")
    (tmp_path / "before").rename(tmp_path / "after")
    assert obeyed(find_home(tmp_path / "after", profile="two")) == (True, None)


def test_what_replicas_of_two_stores_are_told_at_once_is_all_kept(tmp_path: Path) -> None:
    names = [f"copy{number}" for number in range(12)]
    one, two = (
        Home(tmp_path, replace(home.profile, replicas=dict.fromkeys(names, home.profile.replicas["copy"])))
        for home in homes(tmp_path)
    )
    start = threading.Barrier(2 * len(names), timeout=60)

    def pause(told: tuple[Home, str]) -> None:
        start.wait()
        tell_stopped(*told, "pause")

    with ThreadPoolExecutor(2 * len(names)) as threads:
        list(threads.map(pause, [(home, name) for home in (one, two) for name in names]))
    for home in (one, two):
        with replicas_of(home) as (replicas, _):
            assert [follower.name for follower in replicas.followers if follower._paused] == names


def before_stores_had_names(home: Home, facts: object) -> None:
    """What an earlier Headrace wrote down, for all profiles of a project together."""
    folder = home.data / "replicas"
    folder.mkdir(parents=True)
    (folder / "told.json").write_text(json.dumps(facts))


def test_what_an_earlier_headrace_was_told_is_obeyed_by_the_replicas_of_the_store_without_a_path(
    tmp_path: Path,
) -> None:
    one, two = homes(tmp_path)
    before_stores_had_names(one, {"copy": {"paused": True, "again": "rebuild"}})
    assert (obeyed(one), obeyed(two)) == ((True, "rebuild"), (False, None))
    tell_stopped(two, "copy", "pause")
    assert (obeyed(one), obeyed(two)) == ((True, "rebuild"), (True, None))
    tell_stopped(one, "copy", "resume")
    with replicas_of(one) as (replicas, _):
        replicas.begun_again(replicas.followers[0])
    assert obeyed(one) == (False, None)


@pytest.mark.parametrize("facts", [{"replica": "told", "tables": [], "epoch": 3}, [], "x", {"copy": [1]}])
def test_a_file_that_an_earlier_headrace_did_not_write_for_that_tells_replicas_nothing(
    tmp_path: Path, facts: object
) -> None:
    one, _ = homes(tmp_path)
    before_stores_had_names(one, facts)
    assert obeyed(one) == (False, None)
