"""Readers share the store's memory with the engine: who fills it is interrupted, and the run goes on."""

import json
import threading
from datetime import timedelta
from pathlib import Path

import duckdb
import pyarrow as pa
import pytest

import headrace as hr
from headrace.engine.local import EngineSettings, LocalEngine
from headrace.engine.local.failing import set_aside
from headrace.engine.local.queries import Queries
from headrace.errors import TransientError
from headrace.log import APPEND_SCHEMA, open_embedded_log
from headrace.sql import plan_pipeline
from headrace.store import Store, reading


def opened(folder: Path) -> Store:
    pipeline = hr.Pipeline("p")
    pipeline.stream("events", schema="id VARCHAR, seen TIMESTAMP NOT NULL", event_time="seen")
    return Store.open(folder / "s.duckdb", plan_pipeline(pipeline), identities={"events": "log"})


@pytest.mark.parametrize("step", ["duplicates", "table:counted", "table:days", "ledger"])
def test_an_epoch_for_which_readers_left_no_memory_is_written_once_they_are_interrupted(
    tmp_path: Path, step: str
) -> None:
    pipeline = hr.Pipeline("p")
    schema = "id VARCHAR, seen TIMESTAMP NOT NULL"
    facts = {"event_time": "seen", "unique": "id", "allowed_lateness": "36500 days"}
    pipeline.stream("events", schema=schema, **facts)  # type: ignore[arg-type]
    pipeline.table("counted", "SELECT count(*) AS n, count(DISTINCT id) AS ids FROM events")
    pipeline.table("days", "SELECT window_start, count(*) AS n FROM events GROUP BY window(seen, '1 day')")
    plan = plan_pipeline(pipeline)
    log = open_embedded_log(tmp_path / "log.db", "events")
    store = Store.open(tmp_path / "s.duckdb", plan, identities={"events": log.identity})
    reading, said, full = threading.Event(), list[str](), [step]

    def read() -> None:
        with store.snapshot() as cursor:
            reading.set()
            cursor.execute("SELECT count(*) FROM range(1_000_000_000_000)").fetchall()

    def told() -> None:
        with pytest.raises(TransientError) as error:
            read()
        said.append(error.value.message)

    def on_step(name: str) -> None:
        if full == [name] and store.progress.epoch == 1:
            full.clear()
            raise duckdb.OutOfMemoryException("Out of Memory Error: failed to pin block")

    settings = EngineSettings(linger=timedelta(0))
    engine = LocalEngine(plan, {"events": log}, store, settings=settings, on_step=on_step)
    reader = threading.Thread(target=told, daemon=True)
    for first in (0, 1, 3):  # the second epoch meets the full memory
        values = [{"id": str(n), "seen": f"2026-03-0{n + 1}T12:00:00"} for n in range(first, first + 2)]
        records = [{"value": json.dumps(value).encode()} for value in values]
        log.append(pa.Table.from_pylist(records, schema=APPEND_SCHEMA))
        if first == 1:
            reader.start()
            assert reading.wait(30)
        assert engine.step() is not None
    reader.join(30)
    assert said == ["the query was stopped: the pipeline needed its memory"]
    assert full == []
    assert store.query("SELECT n, ids FROM counted").to_pylist() == [{"n": 5, "ids": 5}]
    assert store.query("SELECT n FROM days").column("n").to_pylist() == [1] * 5
    assert store.ledger().outcomes("events") == {"accepted": 5, "duplicate": 1}
    assert store.ledger().balanced
    engine.close()
    store.close()
    log.close()


def test_passes_without_readers_that_overlap_leave_the_store_open(tmp_path: Path) -> None:
    store = opened(tmp_path)
    first, second = store.without_readers(), store.without_readers()
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    with pytest.raises(TransientError, match="needed its memory"):
        store.query("SELECT 1 AS one")
    second.__exit__(None, None, None)
    assert store.query("SELECT 1 AS one").to_pylist() == [{"one": 1}]
    store.close()


def test_a_reader_that_notices_late_is_told_why_it_was_interrupted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "_CROWDED_LOOKS_MAX", 1)
    store = opened(tmp_path)
    with pytest.raises(TransientError, match="needed its memory"), store.snapshot():
        with store.without_readers():
            pass
        raise duckdb.InterruptException("INTERRUPT Error: Interrupted!")
    store.close()


def test_what_stopped_a_transaction_is_told_though_the_database_is_gone(tmp_path: Path) -> None:
    store = opened(tmp_path)
    with pytest.raises(duckdb.IOException, match="No space left"), store.transaction():
        store._settings.close()
        raise duckdb.IOException("IO Error: No space left on device")
    store.close()


def test_a_row_that_finds_no_memory_is_set_aside_where_nobody_reads_beside(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    queries = Queries(duckdb.connect())  # as in the executors of Spark
    table = queries.table

    def with_little_memory(sql: str) -> pa.Table:
        if "huge" in queries.once("SELECT value FROM _rows").column("value").to_pylist():
            raise duckdb.OutOfMemoryException("Out of Memory Error: could not allocate block")
        return table(sql)

    monkeypatch.setattr(queries, "table", with_little_memory)
    values = ["small", "huge", "small"]
    addresses = {"_partition": pa.array([0] * 3, pa.int32()), "_offset": pa.array(range(3), pa.int64())}
    rows = pa.table({**addresses, "value": values})
    good, failed = set_aside(queries, "SELECT _partition, _offset, value FROM _rows", rows)
    assert good.column("value").to_pylist() == ["small", "small"]
    assert [row.offset for row in failed] == [1]
