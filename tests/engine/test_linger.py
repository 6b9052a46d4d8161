"""Records that come alone wait for company, and those that come in company do not."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pyarrow as pa
import pytest

import headrace as hr
from headrace.engine.local.pace import Linger
from headrace.engine.local.reader import Reader
from headrace.engine.local.settings import EngineSettings
from headrace.log import open_embedded_log
from headrace.log.protocol import Log
from headrace.sql import plan_pipeline


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Log]:
    opened = open_embedded_log(tmp_path / "log.db", "events", partitions=1)
    yield opened
    opened.close()


def looked(log: Log, records: int, *, waits: bool) -> tuple[list[int], int]:
    """Return of how many records a look lingers while one more comes, and how many it gives."""
    pipeline = hr.Pipeline("shop")
    pipeline.stream("events", schema="seen TIMESTAMP NOT NULL", event_time="seen")
    pipeline.table("every", "SELECT seen FROM events")
    reader = Reader(plan_pipeline(pipeline), {"events": log}, EngineSettings(), {})
    log.append(pa.table({"value": pa.array([b"{}"] * records, pa.binary())}))
    told: list[int] = []

    def linger(found: int, age: float) -> bool:
        told.append(found)
        log.append(pa.table({"value": pa.array([b"{}"], pa.binary())}))
        return waits

    positions = {place: {0: 0} for place in reader.logs}
    try:
        found = reader.look(positions, rows_max=10, wait=timedelta(seconds=1), linger=linger)
    finally:
        reader.close()
    return told, sum(batch.slice.records.num_rows for batch in found)


def test_records_that_were_waited_for_share_an_epoch_with_those_before(log: Log) -> None:
    assert looked(log, 7, waits=True) == ([7], 8)


def test_who_does_not_wait_does_not_look_again(log: Log) -> None:
    assert looked(log, 7, waits=False) == ([7], 7)


def test_a_full_slice_is_not_asked_whether_to_wait(log: Log) -> None:
    assert looked(log, 10, waits=True) == ([], 10)


def test_few_records_wait_four_times_as_long_as_their_epochs_take_and_many_not_at_all() -> None:
    linger = Linger()
    assert linger.seconds(1, 0.16) == 0.0  # nothing is known yet
    linger.learn(0.010)
    assert [linger.seconds(found, 0.16) for found in (1, 9, 10, 5000)] == [0.04, 0.04, 0.0, 0.0]


def test_an_epoch_of_many_tables_wants_more_company_and_waits_no_longer_than_is_allowed() -> None:
    linger = Linger()
    linger.learn(0.060)
    assert [linger.seconds(found, 0.16) for found in (10, 59, 60)] == [0.16, 0.16, 0.0]
