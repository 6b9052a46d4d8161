"""Rows that are older than their table's `keep`: a replica that is told to takes them out of its target."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from targets import FilesTarget

from headrace.errors import ProfileError
from headrace.replicate.elasticsearch import ElasticsearchReplica
from headrace.replicate.options import CommonOptions
from headrace.replicate.protocol import Chunk, ReplicaWriter, Task
from headrace.replicate.shapes import tables_of
from headrace.sql import plan_pipeline
from headrace.store import open_store_readonly, results
from headrace.testing import PipelineTest
from headrace.testing.replica_runs import (
    Kept,
    catch_up,
    following,
    pass_hours,
    short,
    sorted_rows,
    tell_expired,
    wait_for,
)
from headrace.testing.replicas import START, same

COUNTS = ("counts", "latest")


@pytest.fixture
def target(tmp_path: Path) -> FilesTarget:
    return FilesTarget(tmp_path / "target")


@pytest.fixture
def test(tmp_path: Path) -> Iterator[PipelineTest]:
    with PipelineTest(short(), folder=tmp_path / "pipeline", start=START) as test:
        tell_expired(test, copy=COUNTS)
        pass_hours(test, 0, 1)
        yield test


def known_keys(test: PipelineTest) -> int:
    (row,) = test.query("SELECT count(*) AS n FROM _headrace._removed WHERE reason = 'expired'")
    return int(row["n"])


def test_a_replica_that_was_away_for_longer_than_the_store_remembers_is_copied_anew(
    test: PipelineTest, target: FilesTarget, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(results, "_EXPIRIES", 2)
    options = target.replica(tables=COUNTS, expired="delete")
    with following(test, options) as follower:
        catch_up(follower)
    pass_hours(test, 1, 3)
    remembered = known_keys(test)
    pass_hours(test, 3, 5)
    assert 0 < known_keys(test) <= 2 * remembered, "what was forgotten is still there"
    with following(test, options) as follower:
        catch_up(follower)
    same(test, target, COUNTS)


class Writing:
    """A replica of which every write is told of first."""

    def __init__(self, options: CommonOptions, told: Callable[[Chunk], None]) -> None:
        self.options, self.told = options, told

    def __getattr__(self, name: str) -> Any:
        return getattr(self.options, name)

    def open(self, task: Task) -> ReplicaWriter:
        writer: ReplicaWriter = self.options.open(task)  # type: ignore[attr-defined]
        write = writer.write

        def told(chunk: Chunk) -> None:
            self.told(chunk)
            write(chunk)

        writer.write = told  # type: ignore[method-assign]
        return writer


def test_a_replica_that_falls_behind_what_the_store_remembers_while_it_copies_begins_anew(
    test: PipelineTest, target: FilesTarget, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(results, "_EXPIRIES", 1)
    stands, goes_on = threading.Event(), threading.Event()

    def hold(chunk: Chunk) -> None:
        stands.set()
        assert goes_on.wait(60)

    told = Kept()
    options: Any = Writing(target.replica(tables=COUNTS, expired="delete", chunk_rows_max=4), hold)
    with following(test, options, told=told) as follower:
        assert stands.wait(60)
        pass_hours(test, 1, 4)
        goes_on.set()
        catch_up(follower)
    assert "waiting" in told.states
    same(test, target, COUNTS)


def test_who_declares_it_later_or_takes_it_back_gets_what_is_declared_from_then_on(
    test: PipelineTest, target: FilesTarget
) -> None:
    keeps, deletes = (target.replica(tables=COUNTS, expired=word) for word in ("keep", "delete"))
    tell_expired(test, other=COUNTS)  # another replica's rows are told of, and not this one's
    with following(test, keeps) as follower:
        catch_up(follower)
        pass_hours(test, 1, 3)
        catch_up(follower)
    assert len(target.rows("counts")) > len(test.table("counts"))
    tell_expired(test, other=COUNTS, copy=COUNTS)
    with following(test, deletes) as follower:
        catch_up(follower)
        same(test, target, COUNTS)
    tell_expired(test, other=COUNTS)
    before = len(target.rows("counts"))
    with following(test, keeps) as follower:
        pass_hours(test, 3, 4)
        catch_up(follower)
        assert len(target.rows("counts")) == before + 8
    tell_expired(test)
    assert known_keys(test) == 0, "nobody needs them any more"


def test_a_run_forgets_no_more_than_it_says_when_it_ends_in_the_middle(
    test: PipelineTest, target: FilesTarget
) -> None:
    options = target.replica(tables=COUNTS, expired="delete", chunk_rows_max=3)
    for hour in range(1, 4):  # each one sends only a part of what it has to
        pass_hours(test, hour, hour + 1)
        with following(test, options) as follower:
            wait_for(lambda: follower.copies[0].rows_sent > 0, "something is sent")
    with following(test, options) as follower:
        catch_up(follower)
    same(test, target, COUNTS)


@pytest.mark.parametrize(
    ("options", "said", "fix"),
    [
        ({"mode": "append"}, "rows are never taken out of the target", 'mode = "update"'),
        ({"tables": ("lines",)}, "'lines' have no key", "leave 'lines' out"),
        ({}, "'lines' have no key", "leave 'lines' out"),
    ],
)
def test_where_no_row_could_be_deleted_it_is_refused(options: dict[str, Any], said: str, fix: str) -> None:
    pipeline = short()
    pipeline.table("lines", "SELECT seen, who FROM events", keep="2 hours")
    plan = plan_pipeline(pipeline)
    replica = ElasticsearchReplica(kind="elasticsearch", url="http://h:1", expired="delete", **options)
    with pytest.raises(ProfileError, match=said) as raised:
        tables_of(plan, replica, "copy")
    assert fix in raised.value.fix
    kept = ElasticsearchReplica(kind="elasticsearch", url="http://h:1", **options)
    assert tables_of(plan, kept, "copy")


PROJECT = """
import headrace as hr
pipeline = hr.Pipeline("shop")
pipeline.stream("events", schema="seen TIMESTAMP NOT NULL, who VARCHAR", event_time="seen",
                allowed_lateness="1 minute")
pipeline.table("counts", "SELECT window_start, who, count(*) AS n FROM events "
               "GROUP BY window(seen, '10 minutes'), who", keep="10 hours")
"""
PROFILE = """
[profiles.local]
page.serve = "off"
replicas.changes = { kind = "files", path = "changes/", expired = "delete" }
replicas.archive = { kind = "files", path = "archive/" }
"""


def headrace(folder: Path, *words: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "headrace", *words],
        cwd=folder, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
def test_of_two_replicas_of_a_run_each_does_as_its_profile_says(tmp_path: Path) -> None:
    (tmp_path / "pipeline.py").write_text(PROJECT)
    (tmp_path / "headrace.toml").write_text(PROFILE)
    changes, archive = FilesTarget(tmp_path / "changes"), FilesTarget(tmp_path / "archive")
    began = datetime.now(UTC) - timedelta(hours=9)
    lines = [
        f'{{"seen": "{(began + timedelta(minutes=20 * at)).isoformat()}", "who": "ann"}}\n'
        for at in range(24)
    ]
    (tmp_path / "events.ndjson").write_text("".join(lines))
    headrace(tmp_path, "produce", "events", "events.ndjson", "--record-time", "event")
    headrace(tmp_path, "run", "--until-caught-up")
    assert len(changes.rows("counts")) == len(archive.rows("counts")) == 24
    (tmp_path / "pipeline.py").write_text(PROJECT.replace("10 hours", "5 hours"))
    headrace(tmp_path, "run", "--until-caught-up")
    store = open_store_readonly(tmp_path / ".headrace" / "store.duckdb")
    try:
        here = store.query("FROM counts", seconds_max=30).to_pylist()
    finally:
        store.close()
    assert 0 < len(here) < 24
    assert sorted_rows(changes.rows("counts")) == sorted_rows(here)
    assert len(archive.rows("counts")) == 24
