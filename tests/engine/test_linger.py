"""Records that come alone wait for company, and those that come in company do not."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pyarrow as pa
import pytest

import headrace as hr
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


def lingered(log: Log, records: int) -> tuple[int, int]:
    """Return how often a look at so many records lingers while one more comes, and how many it gives."""
    pipeline = hr.Pipeline("shop")
    pipeline.stream(
        "events", schema="seen TIMESTAMP NOT NULL", event_time="seen", allowed_lateness="1 minute"
    )
    pipeline.table("every", "SELECT seen FROM events")
    reader = Reader(plan_pipeline(pipeline), {"events": log}, EngineSettings(), {})
    log.append(pa.table({"value": pa.array([b"{}"] * records, pa.binary())}))
    pauses: list[float] = []

    def pause(age: float) -> None:
        pauses.append(age)
        log.append(pa.table({"value": pa.array([b"{}"], pa.binary())}))

    positions = {place: {0: 0} for place in reader.logs}
    try:
        found = reader.look(positions, rows_max=1_000, wait=timedelta(seconds=1), linger=pause)
    finally:
        reader.close()
    return len(pauses), sum(batch.slice.records.num_rows for batch in found)


def test_few_records_wait_for_more_and_share_an_epoch_with_them(log: Log) -> None:
    assert lingered(log, 7) == (1, 8)


def test_records_that_come_in_company_wait_for_no_more(log: Log) -> None:
    assert lingered(log, 8) == (0, 8)
