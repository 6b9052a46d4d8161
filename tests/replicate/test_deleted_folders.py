"""A folder that a replica writes into, and that somebody deletes while it does."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from targets import DeltaTarget, FilesTarget, ParquetTarget

from headrace.errors import RefusedError
from headrace.testing.pipeline_test import PipelineTest
from headrace.testing.replica_runs import Kept, catch_up, feed, following, shop
from headrace.testing.replica_writes import FIRST, THINGS, chunk, opened, thing
from headrace.testing.replicas import same

START = "2026-03-01T12:00:00"
TABLES = ("totals", "all_rows")


def emptied(folder: Path) -> None:
    for each in folder.iterdir():
        shutil.rmtree(each) if each.is_dir() else each.unlink()


@pytest.mark.parametrize("deleted", [shutil.rmtree, emptied])
@pytest.mark.parametrize("kind", [FilesTarget, ParquetTarget])
def test_a_folder_that_is_deleted_is_told_as_that_and_filled_anew_when_the_replica_is_resumed(
    tmp_path: Path, kind: Any, deleted: Any
) -> None:
    folder = tmp_path / "target"
    target = kind(folder)
    with PipelineTest(shop(), folder=tmp_path / "shop", start=START) as test:
        feed(test, 0, 20)
        with following(test, target.replica(tables=TABLES)) as follower:
            catch_up(follower)
            deleted(folder)
            feed(test, 20, 20)
            with pytest.raises(RefusedError, match="is gone: somebody has deleted it") as raised:
                catch_up(follower)
            assert str(folder) in raised.value.message
            assert "headrace replicas resume" in raised.value.fix
            follower.resume()
            catch_up(follower)
            same(test, target, TABLES)


def test_a_manifest_that_is_deleted_is_told_as_that(tmp_path: Path) -> None:
    with opened(ParquetTarget(tmp_path)) as writer:
        writer.take(THINGS.name, None, FIRST)
        (manifest,) = tmp_path.rglob("manifest.json")
        manifest.unlink()
        with pytest.raises(RefusedError, match=r"manifest\.json is gone: somebody has deleted it"):
            writer.write(chunk([thing("ann", 1)], epoch=1))


@pytest.mark.parametrize("deleted", [shutil.rmtree, emptied])
def test_a_delta_table_that_is_deleted_is_made_and_filled_anew(tmp_path: Path, deleted: Any) -> None:
    target = DeltaTarget(str(tmp_path / "target"))
    with PipelineTest(shop(), folder=tmp_path / "shop", start=START) as test:
        feed(test, 0, 20)
        told = Kept()
        with following(test, target.replica(tables=TABLES), told=told) as follower:
            catch_up(follower)
            deleted(tmp_path / "target")
            feed(test, 20, 20)
            said: list[str] = []
            told.state = lambda follower: said.append(str(follower.error))  # type: ignore[method-assign]
            catch_up(follower)
            same(test, target, TABLES)
    assert any("was deleted while the replica wrote there" in each for each in said)
