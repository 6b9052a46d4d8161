"""What is the Parquet replica's own in S3: a commit by one conditional put, and what a crash leaves there."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from subprocess import PIPE
from typing import Any

import duckdb
import pytest
from botocore.exceptions import ConnectionClosedError
from object_store import (
    BucketTarget,
    Door,
    s3_server,
)
from test_parquet import NOON, WINDOWS, windows

from headrace.errors import RefusedError, TransientError
from headrace.replicate.parquet import bucket as in_bucket
from headrace.replicate.parquet import objects
from headrace.replicate.protocol import Position, version_of
from headrace.testing.replica_writes import FIRST, THINGS, chunk, opened, thing

pytestmark = pytest.mark.slow

SECOND = replace(FIRST, generation=2)


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with s3_server(tmp_path_factory.mktemp("s3")) as endpoint:
        yield endpoint


@pytest.fixture
def target(s3: str) -> BucketTarget:
    return BucketTarget(s3)


def begun(target: BucketTarget, *epochs: int) -> None:
    """Let a table be there with a window of each epoch."""
    with opened(target, WINDOWS, mode="append") as writer:
        writer.take("counts", None, FIRST)
        for epoch in epochs:
            writer.write(windows(epoch))


def numbers(target: BucketTarget) -> list[int]:
    """The epochs of the windows that anybody finds who reads every object."""
    return sorted(row["n"] for row in target.rows("counts"))


def listed(target: BucketTarget) -> set[str]:
    return {f"counts/{name}" for name in target.manifest("counts")["files"]}


class Killed(BaseException):
    """The process ends here."""


def kill(monkeypatch: pytest.MonkeyPatch, owner: type, name: str) -> None:
    """Let the process end where it would call that."""

    def end(*_: Any, **__: Any) -> None:
        raise Killed

    monkeypatch.setattr(owner, name, end)


def test_objects_lie_by_date_and_hour_and_the_manifest_lists_them(target: BucketTarget) -> None:
    begun(target, 1)
    with opened(target, WINDOWS, mode="append") as writer:
        writer.write(windows(2, at=NOON - timedelta(hours=5)))
    folders = {key.rpartition("/")[0] for key in target.files("counts")}
    assert folders == {"counts/date=2026-03-01/hour=12", "counts/date=2026-03-01/hour=7"}
    assert set(target.files("counts")) == listed(target)


def test_who_reads_by_the_manifest_reads_what_is_committed(target: BucketTarget, tmp_path: Any) -> None:
    begun(target, 1, 2)
    target.put("counts/date=2026-03-01/hour=12/uncommitted.parquet", b"of nobody")
    for key in target.names():
        (tmp_path / key).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / key).write_bytes(target.read(key))
    with duckdb.connect() as connection:
        connection.execute(
            f"SET VARIABLE files = (SELECT list('{tmp_path}/counts/' || name) FROM (SELECT "
            "unnest(json_keys(files)) AS name FROM read_json("
            f"'{tmp_path}/_headrace/counts/manifest.json', columns = {{files: 'JSON'}})))"
        )
        found = connection.sql(
            "SELECT n, hour FROM read_parquet(getvariable('files'), hive_partitioning = true) ORDER BY n"
        ).fetchall()
    assert found == [(1, 12), (2, 12)]


def test_a_writer_that_slept_while_another_took_the_table_commits_nothing(
    target: BucketTarget, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun(target, 1)
    with opened(target, WINDOWS, mode="append") as old, opened(target, WINDOWS, mode="append") as new:
        put_file = in_bucket.Bucket.put_file

        def slept(self: Any, *words: Any) -> None:
            monkeypatch.setattr(in_bucket.Bucket, "put_file", put_file)
            put_file(self, *words)
            new.take("counts", replace(FIRST, position=Position.at(1)), SECOND)

        monkeypatch.setattr(in_bucket.Bucket, "put_file", slept)
        with pytest.raises(RefusedError, match="taken over"):
            old.write(windows(2))
        new.write(windows(3, cursor=SECOND))
    assert numbers(target) == [1, 3]
    assert set(target.files("counts")) == listed(target)
    assert not target.names("_headrace/counts/pending/")


def test_what_was_not_committed_when_a_run_died_goes_when_the_next_one_takes_the_table(
    target: BucketTarget, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun(target, 1)
    for last in ("put_file", "replace"):
        with monkeypatch.context() as patch, opened(target, WINDOWS, mode="append") as writer:
            kill(patch, in_bucket.Bucket, last)
            with pytest.raises(Killed):
                writer.write(windows(2, 5))
    assert numbers(target) == [1] + [2] * 5, "nothing hides it until then, as the documents say"
    with opened(target, WINDOWS, mode="append") as writer:
        seen = writer.cursors()["counts"]
        assert seen.position == Position.at(1)
        writer.take("counts", seen, replace(SECOND, position=seen.position))
        assert numbers(target) == [1]
        writer.write(windows(2, cursor=SECOND))
    assert numbers(target) == [1, 2]
    assert set(target.files("counts")) == listed(target)


@pytest.mark.parametrize("dies", [False, True])
def test_objects_of_a_writer_that_wakes_up_after_another_took_the_table_disturb_nobody(
    target: BucketTarget, monkeypatch: pytest.MonkeyPatch, dies: bool
) -> None:
    begun(target, 1)
    with opened(target, WINDOWS, mode="append") as old, opened(target, WINDOWS, mode="append") as new:
        put_file = in_bucket.Bucket.put_file

        def wakes_up(self: Any, *words: Any) -> None:
            monkeypatch.setattr(in_bucket.Bucket, "put_file", put_file)
            new.take("counts", replace(FIRST, position=Position.at(1)), SECOND)
            put_file(self, *words)
            new.write(windows(3, cursor=SECOND))
            if dies:
                raise Killed

        monkeypatch.setattr(in_bucket.Bucket, "put_file", wakes_up)
        with pytest.raises(Killed if dies else RefusedError):
            old.write(windows(2))
    with opened(target, WINDOWS, mode="append") as writer:
        seen = writer.cursors()["counts"]
        writer.take("counts", seen, replace(seen, generation=3))
    assert numbers(target) == [1, 3]
    assert set(target.files("counts")) == listed(target)


def twice(writer: Any, monkeypatch: pytest.MonkeyPatch, between: Any = lambda: None) -> None:
    """Let what stands before the server put a manifest once more, as if the first answer had been lost."""
    client = writer._trees["counts"]._bucket._client_once
    put = client.put_object

    def repeated(**words: Any) -> Any:
        monkeypatch.setattr(client, "put_object", put)
        put(**words)
        between()
        return put(**words)

    monkeypatch.setattr(client, "put_object", repeated)


def test_a_commit_that_is_put_twice_on_its_way_is_one(
    target: BucketTarget, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun(target, 1)
    with opened(target, WINDOWS, mode="append") as writer:
        twice(writer, monkeypatch)
        writer.write(windows(2))
        writer.write(windows(3))
    assert numbers(target) == [1, 2, 3]
    assert set(target.files("counts")) == listed(target)


def test_a_commit_that_was_made_and_then_refused_keeps_its_objects(
    target: BucketTarget, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun(target, 1)
    with opened(target, WINDOWS, mode="append") as old, opened(target, WINDOWS, mode="append") as new:
        second = replace(SECOND, position=Position.at(2))
        twice(old, monkeypatch, lambda: new.take("counts", replace(FIRST, position=Position.at(2)), second))
        with pytest.raises(RefusedError, match="taken over"):
            old.write(windows(2))
        new.write(windows(3, cursor=SECOND))
    assert numbers(target) == [1, 2, 3]
    assert set(target.files("counts")) == listed(target)


def test_of_two_writers_that_take_a_table_at_once_with_the_same_words_one_has_it(
    target: BucketTarget, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun(target, 1)
    with opened(target, WINDOWS, mode="append") as one, opened(target, WINDOWS, mode="append") as other:
        seen, replaced = one.cursors()["counts"], in_bucket.Bucket.replace

        def taken_meanwhile(self: Any, *words: Any) -> Any:
            monkeypatch.setattr(in_bucket.Bucket, "replace", replaced)
            other.take("counts", seen, replace(SECOND, position=seen.position))
            return replaced(self, *words)

        monkeypatch.setattr(in_bucket.Bucket, "replace", taken_meanwhile)
        with pytest.raises(RefusedError, match="taken over"):
            one.take("counts", seen, replace(SECOND, position=seen.position))


def test_rows_of_a_run_that_was_killed_do_not_stay_on_this_machine(
    target: BucketTarget, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    begun(target, 1)
    assert not list(tmp_path.iterdir()), "what was done is taken away"
    code = """if True:
        import os, sys
        from headrace.replicate.parquet.workspace import Workspace
        made = Workspace(sys.argv[1])
        (made.path / "rows.parquet").write_text("rows of users")
        print("made", flush=True)
        sys.stdin.read()
        os._exit(1)
    """
    place = f"s3://{target.bucket}/lake"
    command = [sys.executable, "-c", code, place]
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    with subprocess.Popen(command, stdin=PIPE, stdout=PIPE, text=True, env=environment) as other:
        assert other.stdin is not None
        assert other.stdout is not None
        assert other.stdout.readline() == "made\n"
        with opened(target, WINDOWS, mode="append"):
            assert len(list(tmp_path.rglob("rows.parquet"))) == 1, "it is at work"
        other.stdin.close()
        other.wait()
        assert len(list(tmp_path.rglob("rows.parquet"))) == 1, "nobody has taken them away so far"
    with opened(target, WINDOWS, mode="append"):
        assert not list(tmp_path.iterdir())


def test_what_a_commit_replaced_goes_when_a_run_died_before_it_took_it_away(
    target: BucketTarget, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened(target) as writer:
        writer.take(THINGS.name, None, FIRST)
        writer.write(chunk([thing("ann", 1), thing("bob", 1)], epoch=1))
        with monkeypatch.context() as patch:
            kill(patch, objects.ObjectTree, "_let_go")
            with pytest.raises(Killed):
                writer.write(chunk([thing("ann", 2, epoch=2)], epoch=2))
    with opened(target) as writer:
        seen = writer.cursors()[THINGS.name]
        assert seen.position == Position.at(2), "it was committed"
        writer.take(THINGS.name, seen, replace(SECOND, position=seen.position))
    assert {row["who"]: row["n"] for row in target.rows(THINGS.name)} == {"ann": 2, "bob": 1}


def test_a_commit_whose_answer_is_lost_is_found_by_the_next_try(
    target: BucketTarget, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun(target)
    commit = in_bucket.Bucket.replace

    def lost(self: Any, *words: Any) -> Any:
        commit(self, *words)
        raise ConnectionClosedError(endpoint_url=target.endpoint)

    with opened(target, WINDOWS, mode="append") as writer, monkeypatch.context() as patch:
        patch.setattr(in_bucket.Bucket, "replace", lost)
        with pytest.raises(TransientError):
            writer.write(windows(1))
    with opened(target, WINDOWS, mode="append") as writer:
        assert writer.cursors()["counts"].position == Position.at(1)
        writer.write(windows(1))
    assert numbers(target) == [1]


def test_an_object_of_somebody_else_is_told_and_kept(target: BucketTarget) -> None:
    begun(target, 1)
    theirs = "counts/date=2026-03-01/hour=12/theirs.parquet"
    target.put(theirs, b"theirs")
    with opened(target, WINDOWS, mode="append") as writer:
        with pytest.raises(RefusedError, match=r"theirs.parquet is not listed"):
            writer.write(windows(2))
        with pytest.raises(RefusedError, match=r"theirs.parquet is not listed"):
            writer.take("counts", writer.cursors()["counts"], SECOND)
    assert target.read(theirs) == b"theirs"


def test_hours_that_somebody_deleted_are_not_missed_and_a_single_object_is(target: BucketTarget) -> None:
    begun(target)
    with opened(target, WINDOWS, mode="append") as writer:
        writer.write(windows(1, at=NOON - timedelta(days=1)))
        writer.write(windows(2))
        writer.write(windows(3))
    for key in target.names("counts/date=2026-02-28/"):
        target.delete(key)
    with opened(target, WINDOWS, mode="append") as writer:
        seen = writer.cursors()["counts"]
        writer.take("counts", seen, replace(SECOND, position=seen.position))
        assert set(target.files("counts")) == listed(target)
        target.delete(target.files("counts")[0])
        with pytest.raises(RefusedError, match="is gone"):
            writer.write(windows(4, cursor=SECOND))


def test_objects_of_which_no_manifest_tells_are_not_written_to(target: BucketTarget) -> None:
    begun(target, 1)
    target.delete("_headrace/counts/manifest.json")
    with pytest.raises(RefusedError, match="manifest") as raised, opened(target, WINDOWS, mode="append"):
        pass
    assert "bring the manifest back" in raised.value.fix


def test_a_manifest_that_is_deleted_meanwhile_is_told(target: BucketTarget) -> None:
    begun(target)
    with opened(target, WINDOWS, mode="append") as writer:
        target.delete("_headrace/counts/manifest.json")
        with pytest.raises(RefusedError, match=r"manifest.json is gone"):
            writer.write(windows(1))


def test_small_objects_are_put_together(target: BucketTarget) -> None:
    begun(target)
    with opened(target, WINDOWS, mode="append") as writer:
        for epoch in range(1, 21):
            writer.write(windows(epoch, 2))
    assert len(target.files("counts")) < 8
    assert numbers(target) == sorted([*range(1, 21)] * 2)
    assert set(target.files("counts")) == listed(target)


def test_a_rebuild_takes_out_what_the_store_does_not_have(target: BucketTarget) -> None:
    begun(target, 1, 2, 3)
    again = replace(SECOND, sweep_below=version_of(2, 0))
    with opened(target, WINDOWS, mode="append") as writer:
        writer.take("counts", writer.cursors()["counts"], again)
        writer.write(windows(2, cursor=again))
        assert numbers(target) == [1, 2, 3]
        writer.write(windows(4, cursor=SECOND, sweep_below=version_of(2, 0)))
    assert numbers(target) == [2, 4]


@pytest.mark.parametrize("header", ["If-Match", "If-None-Match"])
def test_a_server_that_replaces_objects_without_looking_is_not_written_to(s3: str, header: str) -> None:
    door = Door(s3, {header.encode(): b"X-Naught"})
    try:
        target = BucketTarget(s3, door=door)
        with pytest.raises(RefusedError, match=rf"\({header}\)"), opened(target, WINDOWS):
            pass
        assert target.names() == []
    finally:
        door.close()


def test_an_object_that_was_cut_is_named(target: BucketTarget) -> None:
    with opened(target) as writer:
        writer.take(THINGS.name, None, FIRST)
        writer.write(chunk([thing("ann", 1)], epoch=1))
    (key,) = target.files(THINGS.name)
    target.put(key, target.read(key)[:100])
    with (
        opened(target) as writer,
        pytest.raises(RefusedError, match=f"lake/{key} is no whole Parquet file") as raised,
    ):
        writer.write(chunk([thing("ann", 2, epoch=2)], epoch=2))
    assert "bring it back" in raised.value.fix


@pytest.mark.parametrize("body", [b'{"commit": 1, "cur', b"{}", b"[]", b"\xff"])
def test_a_manifest_that_somebody_changed_is_named(target: BucketTarget, body: bytes) -> None:
    begun(target, 1)
    target.put("_headrace/counts/manifest.json", body)
    with (
        pytest.raises(RefusedError, match=r"lake/_headrace/counts/manifest.json is not as") as raised,
        opened(target, WINDOWS, mode="append"),
    ):
        pass
    assert "bring it back" in raised.value.fix


def test_an_error_of_our_own_is_none_of_the_profile(
    target: BucketTarget, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun(target, 1)

    def wrong(*_: Any) -> Any:
        raise ValueError("of our own")

    monkeypatch.setattr(objects.ObjectTree, "check", wrong)
    with opened(target, WINDOWS, mode="append") as writer, pytest.raises(ValueError, match="of our own"):
        writer.write(windows(2))


def test_a_bucket_that_is_not_there_is_for_an_operator(s3: str) -> None:
    with pytest.raises(RefusedError, match="bucket") as raised, opened(BucketTarget(s3, "no-such-bucket")):
        pass
    assert "make the bucket" in raised.value.fix


def test_a_store_that_does_not_answer_is_tried_again() -> None:
    with pytest.raises(TransientError), opened(BucketTarget("http://127.0.0.1:1", "lake")):
        pass
