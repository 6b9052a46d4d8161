"""A store that was set back to an older copy is not followed, however far it has come since."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from targets import DeltaTarget, FilesTarget, PostgresTarget

from headrace.errors import RefusedError
from headrace.testing.pipeline_test import PipelineTest
from headrace.testing.replica_runs import catch_up, feed, following, shop, wait_for
from headrace.testing.replicas import same

NAMES = ("all_rows", "totals", "best")
Target = DeltaTarget | FilesTarget | PostgresTarget


@pytest.fixture(params=["files", "delta", "postgresql"])
def target(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Target]:
    if request.param == "files":
        yield FilesTarget(tmp_path / "files")
    elif request.param == "delta":
        yield DeltaTarget(str(tmp_path / "lake"))
    else:
        server, name = request.getfixturevalue("postgres_server"), f"test_{uuid.uuid4().hex[:12]}"
        with psycopg.connect(server, autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}")
        yield PostgresTarget(server.removesuffix("postgres") + name)
        with psycopg.connect(server, autocommit=True) as connection:
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


def opened(folder: Path) -> PipelineTest:
    return PipelineTest(shop(), folder=folder, start="2026-03-01T12:00:00")


def refused(test: PipelineTest, target: Target) -> None:
    with following(test, target.replica(tables=NAMES)) as follower:
        for _ in range(2):
            with pytest.raises(RefusedError, match="set back") as raised:
                catch_up(follower)
            assert "replicas adopt copy" in raised.value.fix
            follower.resume()


def passed(test: PipelineTest, epoch: int) -> None:
    """Let the store go on until its epoch is beyond the one that it had before."""
    first = 70
    while test.store.status().epoch <= epoch:
        feed(test, first, 10)
        first += 10


def copied(folder: Path, target: Target, *, first: int) -> int:
    """Read records and copy what the store has; return its epoch."""
    with opened(folder) as test:
        feed(test, first, 20)
        with following(test, target.replica(tables=NAMES)) as follower:
            catch_up(follower)
        return test.store.status().epoch


@pytest.mark.parametrize("again", ["rebuild", "adopt"])
def test_a_store_that_was_set_back_is_refused_also_when_it_has_passed_the_target(
    target: Target, tmp_path: Path, again: str
) -> None:
    folder = tmp_path / "pipeline"
    with opened(folder) as test:
        feed(test, 0, 20)
    shutil.copy(folder / "store.duckdb", tmp_path / "backup")
    epoch = copied(folder, target, first=20)
    shutil.copy(tmp_path / "backup", folder / "store.duckdb")
    with opened(folder) as test:
        refused(test, target)
        passed(test, epoch)
        refused(test, target)
    with opened(folder) as test:
        refused(test, target)
        with following(test, target.replica(tables=NAMES), again=again) as follower:
            catch_up(follower)
            if again == "rebuild":
                same(test, target, NAMES)
    with opened(folder) as test:
        feed(test, 400, 20)
        with following(test, target.replica(tables=NAMES)) as follower:
            catch_up(follower)
            if again == "rebuild":
                same(test, target, NAMES)


def test_a_replica_that_was_paused_until_the_store_had_passed_the_target_is_refused(
    target: Target, tmp_path: Path
) -> None:
    folder = tmp_path / "pipeline"
    copied(folder, target, first=0)
    shutil.copy(folder / "store.duckdb", tmp_path / "backup")
    epoch = copied(folder, target, first=20)
    shutil.copy(tmp_path / "backup", folder / "store.duckdb")
    with opened(folder) as test:
        with following(test, target.replica(tables=NAMES), paused=True) as follower:
            wait_for(lambda: follower.state == "paused", "the follower pauses")
            passed(test, epoch)
        refused(test, target)
        with following(test, target.replica(tables=NAMES), again="rebuild") as follower:
            catch_up(follower)
        same(test, target, NAMES)


def test_a_target_that_was_set_back_with_its_store_is_followed(tmp_path: Path) -> None:
    folder, target = tmp_path / "pipeline", DeltaTarget(str(tmp_path / "lake"))
    copied(folder, target, first=0)
    shutil.copy(folder / "store.duckdb", tmp_path / "backup")
    shutil.copytree(tmp_path / "lake", tmp_path / "lake before")
    epoch = copied(folder, target, first=20)
    shutil.copy(tmp_path / "backup", folder / "store.duckdb")
    with opened(folder) as test:
        refused(test, target)
        passed(test, epoch)
        shutil.rmtree(tmp_path / "lake")
        shutil.copytree(tmp_path / "lake before", tmp_path / "lake")
        for _ in range(2):
            with following(test, target.replica(tables=NAMES)) as follower:
                catch_up(follower)
            same(test, target, NAMES)


def test_a_replica_whose_target_is_another_for_a_while_goes_on_with_the_first(tmp_path: Path) -> None:
    folder, first = tmp_path / "pipeline", FilesTarget(tmp_path / "first")
    for number, target in enumerate([first, first, FilesTarget(tmp_path / "second"), first]):
        copied(folder, target, first=20 * number)
    with opened(folder) as test:
        same(test, first, NAMES)
