"""Versions of reference files: what holds for which record, and files that are wrong."""

import logging
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import headrace as hr
from headrace.engine.local import LocalEngine
from headrace.errors import RefusedError
from headrace.log import open_embedded_log
from headrace.sql import plan_pipeline
from headrace.store import Store
from headrace.testing import VirtualClock
from headrace.testing.records import append_table, record_json

START = datetime(2026, 1, 1, tzinfo=UTC)
BY_COLOUR = "SELECT r.c, count(*) AS n FROM e JOIN r ON e.id = r.id GROUP BY r.c"
TYPED = "id VARCHAR NOT NULL, c VARCHAR"


class Joined:
    """A stream that is joined with a file."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.file, self.clock = folder, folder / "r.csv", VirtualClock(START)

    def open(self, *rebuild: str, query: str = BY_COLOUR, schema: str | None = TYPED) -> "Joined":
        pipeline = hr.Pipeline("p")
        pipeline.stream("e", schema="id VARCHAR NOT NULL, ts TIMESTAMP NOT NULL", event_time="ts")
        pipeline.reference("r", path=str(self.file), schema=schema, key="id")
        pipeline.table("v", query)
        plan = plan_pipeline(pipeline)
        self.log = open_embedded_log(self.folder / "log.db", "e", clock=self.clock, durable=False)
        store = self.folder / "s.duckdb"
        self.store = Store.open(store, plan, identities={"e": self.log.identity}, rebuild=rebuild)
        try:
            self.engine = LocalEngine(plan, {"e": self.log}, self.store)
        except BaseException:
            self.store.close()
            self.log.close()
            raise
        return self

    def close(self) -> None:
        for one in (self.engine, self.store, self.log):
            one.close()

    def send(self, minute: int, *, at: int) -> None:
        value = record_json({"id": "1", "ts": START + timedelta(minutes=minute)}).encode()
        self.log.append(append_table([value], record_time=START + timedelta(minutes=at)))
        while self.engine.step() is not None:
            pass

    def rows(self) -> list[tuple[object, ...]]:
        return [tuple(row.values()) for row in self.store.query("FROM v ORDER BY ALL").to_pylist()]


def test_a_record_from_the_future_keeps_its_version_in_a_rebuild(tmp_path: Path) -> None:
    run = Joined(tmp_path)
    run.file.write_text("id,c\n1,old\n")
    run.open().send(0, at=0)
    run.send(29, at=30)
    run.file.write_text("id,c\n1,newer\n")
    run.clock.time = START + timedelta(minutes=2)
    run.send(1, at=2)
    run.send(31, at=31)
    before = run.rows()
    assert before == [("newer", 1), ("old", 3)]
    run.close()
    run.open("v").send(32, at=32)
    assert run.rows() == [("newer", 2), ("old", 3)]
    run.close()


def test_a_wrong_file_leaves_the_version_before_in_use_and_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = Joined(tmp_path)
    run.file.write_text("id,c\n1,old\n")
    run.open().send(0, at=0)
    for wrong in ("id,c\n1,a\n1,b\n", "id", "", "id,d\n1,half"):
        caplog.clear()
        run.file.write_text(wrong)
        with caplog.at_level(logging.WARNING, "headrace"):
            run.send(0, at=0)
        assert "reference 'r'" in caplog.text
    assert run.rows() == [("old", 5)]
    run.file.write_text("id,c\n1,mended\n")
    run.clock.time = START + timedelta(minutes=1)
    run.send(1, at=2)
    assert run.rows() == [("mended", 1), ("old", 5)]
    run.close()


def test_a_wrong_file_at_the_start_is_refused(tmp_path: Path) -> None:
    run = Joined(tmp_path)
    run.file.write_text("id,c\n1,a\n1,b\n")
    with pytest.raises(RefusedError, match="come twice"):
        run.open()


def test_a_new_column_of_the_file_is_adopted_at_the_next_start(tmp_path: Path) -> None:
    run = Joined(tmp_path)
    run.file.write_text("id,c\n1,old\n")
    run.open(schema=None).send(0, at=0)
    run.close()
    run.file.write_text("id,d,c\n1,5,old\n")
    run.open(schema=None).send(0, at=0)
    assert run.rows() == [("old", 2)]
    assert run.store.query("FROM r").to_pylist() == [{"id": 1, "d": 5, "c": "old"}]
    run.close()


def test_a_column_that_has_another_type_is_refused_by_name(tmp_path: Path) -> None:
    run = Joined(tmp_path)
    query = "SELECT count(*) AS n FROM e"
    run.file.write_text("id,c\n1,7\n")
    run.open(schema=None, query=query).close()
    run.file.write_text("id,c\n1,seven\n")
    with pytest.raises(RefusedError, match="column 'c' was BIGINT and is VARCHAR now"):
        run.open(schema=None, query=query)


@pytest.mark.parametrize("schema", [TYPED, None])
def test_a_parquet_file_is_joined_as_a_csv_file_is(tmp_path: Path, schema: str | None) -> None:
    run = Joined(tmp_path)
    run.file = tmp_path / "r.parquet"
    pq.write_table(pa.table({"c": ["old"], "id": ["1"], "more": [1]}), run.file)
    run.open(schema=schema).send(0, at=0)
    run.clock.time = START + timedelta(minutes=1)
    pq.write_table(pa.table({"c": ["newer"], "id": ["1"], "more": [1]}), run.file)
    run.send(1, at=2)
    assert run.rows() == [("newer", 1), ("old", 1)]
    run.close()
