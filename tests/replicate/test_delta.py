"""What is Delta's own: the commit that carries the cursor, folders, small files, and S3."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest
from object_store import KEY, SECRET, delta_in_s3, made_bucket, s3_server
from targets import DeltaTarget
from test_parquet import WINDOWS, windows

from headrace.errors import HeadraceError, ProfileError, RefusedError, TransientError
from headrace.operate.secrets import Secret
from headrace.replicate.delta import writer as writing
from headrace.replicate.delta.failures import delta_failures
from headrace.replicate.protocol import NamedColumn, Position, TableShape
from headrace.testing.replica_writes import FIRST, THINGS, chunk, opened, thing


@pytest.fixture
def target(tmp_path: Path) -> DeltaTarget:
    return DeltaTarget(str(tmp_path / "lake"))


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with s3_server(tmp_path_factory.mktemp("s3")) as endpoint:
        yield endpoint


def test_rows_and_cursor_are_one_commit_and_a_repeated_epoch_is_found_by_the_writer(
    target: DeltaTarget,
) -> None:
    with opened(target, WINDOWS, mode="append") as writer:
        writer.take("counts", None, FIRST)
        before = target.table("counts").version()
        writer.write(windows(5, 3))
        table = target.table("counts")
        assert table.version() == before + 1
        assert table.transaction_version("headrace a-store 1") == 5
    with opened(target, WINDOWS, mode="append") as writer:
        writer.write(windows(5, 3))
    assert target.table("counts").version() == before + 1
    assert len(target.rows("counts")) == 3


def test_a_commit_that_was_prepared_before_a_takeover_is_refused(target: DeltaTarget) -> None:
    from headrace.replicate.delta.writer import DeltaTable

    class Late(DeltaTable):
        """A snapshot that is not looked at anew: as if its process had slept in between."""

        def update_incremental(self) -> None:
            return None

    with opened(target, WINDOWS, mode="append") as old, opened(target, WINDOWS, mode="append") as new:
        old.take("counts", None, FIRST)
        asleep: Any = old
        asleep._tables["counts"] = Late(target.table("counts").table_uri)
        new.take("counts", FIRST, replace(FIRST, generation=2))
        with pytest.raises(RefusedError, match="taken over"):
            old.write(windows(1))
    assert target.rows("counts") == []


def test_who_takes_a_table_while_a_chunk_comes_is_refused(target: DeltaTarget) -> None:
    from headrace.replicate.delta.writer import DeltaTable

    with opened(target, WINDOWS, mode="append") as old, opened(target, WINDOWS, mode="append") as new:
        old.take("counts", None, FIRST)
        old.write(windows(1))

        class Overtaken(DeltaTable):
            """A snapshot after which, before anything is committed, the other writer writes a chunk."""

            def update_incremental(self) -> None:
                super().update_incremental()
                old.write(windows(2))

        asleep: Any = new
        asleep._tables["counts"] = Overtaken(target.table("counts").table_uri)
        with pytest.raises(RefusedError, match="taken over"):
            new.take("counts", replace(FIRST, position=Position.at(1)), replace(FIRST, generation=2))
        old.write(windows(3))
    assert sorted(row["n"] for row in target.rows("counts")) == [1, 2, 3]


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        ("Generic S3 error: 403 Forbidden", RefusedError),
        ("response: status 401, body …", RefusedError),
        ("error sending request for url (…/part-00403-4011-c000.parquet): timed out", TransientError),
        ("connection reset after 14031 bytes", TransientError),
    ],
)
def test_a_number_in_a_name_or_a_size_is_no_status(said: str, kind: type[HeadraceError]) -> None:
    with pytest.raises(kind), delta_failures("the lake", ()):
        raise OSError(said)


def test_rows_lie_in_folders_by_date_and_hour(target: DeltaTarget) -> None:
    with opened(target, WINDOWS, mode="append") as writer:
        writer.take("counts", None, FIRST)
        writer.write(windows(1))
    assert target.table("counts").partitions() == [{"date": "2026-03-01", "hour": "12"}]


def test_small_files_are_put_together(target: DeltaTarget) -> None:
    with opened(target, WINDOWS, mode="append") as writer:
        writer.take("counts", None, FIRST)
        for epoch in range(1, 40):
            writer.write(windows(epoch, 2))
    assert len(target.table("counts").file_uris()) < 12
    assert len(target.rows("counts")) == 78


def test_files_that_no_version_needs_are_deleted(
    target: DeltaTarget, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writing, "_COMPACT_EVERY", 4)
    monkeypatch.setattr(writing, "_VACUUM_EVERY", 4)
    folder = Path(target.place) / "counts"

    def files() -> int:
        return len(list(folder.rglob("*.parquet")))

    with opened(target, WINDOWS, mode="append") as writer:
        writer.take("counts", None, FIRST)
        for epoch in range(1, 9):
            writer.write(windows(epoch, 2))
        kept = files()
        assert kept >= 8, "a week is kept unless the table says otherwise"
        shorter = {"delta.deletedFileRetentionDuration": "interval 0 seconds"}
        target.table("counts").alter.set_table_properties(shorter)
    with opened(target, WINDOWS, mode="append") as writer:
        for epoch in range(9, 17):
            writer.write(windows(epoch, 2))
    assert files() < kept
    assert len(target.rows("counts")) == 32


def test_every_number_and_time_has_a_type_that_holds_it(target: DeltaTarget) -> None:
    kinds = {
        "UTINYINT": 255, "USMALLINT": 65_535, "UINTEGER": 2**32 - 1, "UBIGINT": 2**64 - 1,
        "HUGEINT": -(10**30), "TIME": "23:59:59.5", "INTERVAL": "1 day",
    }  # fmt: skip
    shape = TableShape(name="kinds", columns=tuple(NamedColumn(f"c_{kind}", kind) for kind in kinds), key=())
    cells = ", ".join(f"'{value}'::{kind} AS c_{kind}" for kind, value in kinds.items())
    with duckdb.connect() as connection:
        rows: pa.Table = connection.sql(f"SELECT {cells}, 5::BIGINT AS _version").to_arrow_table()
    with opened(target, shape) as writer:
        writer.take("kinds", None, FIRST)
        writer.write(replace(chunk(epoch=1), table=shape, rows=rows, removed=rows.slice(0, 0)))
    (found,) = target.rows("kinds")
    assert [str(value) for value in list(found.values())[:-1]] == [
        "255", "65535", "4294967295", "18446744073709551615", str(-(10**30)), "23:59:59.5", "1 day"
    ]  # fmt: skip


def test_tables_in_s3_are_written_and_a_second_writer_is_refused(s3: str) -> None:
    target = delta_in_s3(s3, made_bucket(s3))
    with opened(target) as old, opened(target) as new:
        old.take(THINGS.name, None, FIRST)
        old.write(chunk([thing("ann", 1), thing(None, 2)], epoch=1))
        new.take(THINGS.name, replace(FIRST, position=Position.at(1)), replace(FIRST, generation=2))
        with pytest.raises(RefusedError, match="taken over"):
            old.write(chunk([thing("ann", 3)], epoch=2))
    assert {row["who"]: row["n"] for row in target.rows(THINGS.name)} == {"ann": 1, None: 2}


def test_a_bucket_that_is_not_there_is_for_an_operator_and_no_secret_is_told(s3: str) -> None:
    with pytest.raises(HeadraceError) as raised, opened(delta_in_s3(s3, "no-such-bucket")):
        pass
    assert KEY not in str(raised.value) and SECRET not in str(raised.value)
    assert isinstance(raised.value, RefusedError)


def test_a_store_that_does_not_answer_is_tried_again() -> None:
    with pytest.raises(TransientError), opened(delta_in_s3("http://127.0.0.1:1", "lake")):
        pass


@pytest.mark.parametrize("more", [{"path": ""}, {"uri": "s3://x/y"}, {"access_key": Secret("x")}])
def test_a_description_that_cannot_be_is_refused(target: DeltaTarget, more: dict[str, Any]) -> None:
    with pytest.raises(ProfileError), opened(target, **more):
        pass
