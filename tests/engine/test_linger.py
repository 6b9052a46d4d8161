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


def linger_of(cost: float, rate: float) -> Linger:
    """Return one that has seen nine epochs that took `cost` seconds, while `rate` records a second came."""
    linger, moment, apart = Linger(), 0.0, 0.05
    for _ in range(9):
        linger.learn(round(rate * apart), cost, moment)
        moment += apart
    return linger


def test_nothing_is_waited_for_before_the_first_epoch_and_little_is_known_after_it() -> None:
    linger = Linger()
    assert linger.seconds(1, 0.0, 0.16) == 0.0
    linger.learn(1, 0.010, 5.0)
    assert linger.seconds(1, 0.0, 0.16) == pytest.approx(0.04)


def test_records_wait_until_those_have_come_that_share_the_cost_of_an_epoch() -> None:
    linger = linger_of(0.010, rate=400.0)
    waits = [linger.seconds(found, 0.0, 0.16) for found in (1, 2, 6, 9, 10, 5000)]
    assert waits == pytest.approx([0.0225, 0.02, 0.01, 0.0025, 0.0, 0.0])


def test_records_that_come_now_and_then_wait_four_times_as_long_as_an_epoch_takes() -> None:
    assert linger_of(0.010, rate=20.0).seconds(1, 0.0, 0.16) == pytest.approx(0.04)
    # No longer than is allowed.
    assert linger_of(0.060, rate=20.0).seconds(1, 0.0, 0.16) == pytest.approx(0.16)


def test_what_a_record_has_waited_already_shortens_the_longest_wait_and_no_other() -> None:
    rare, steady = linger_of(0.010, rate=20.0), linger_of(0.030, rate=500.0)
    assert [rare.seconds(1, age, 0.16) for age in (0.0, 0.03, 0.05)] == pytest.approx([0.04, 0.01, 0.0])
    # After an epoch of 30 ms the first of 15 is as old; the other 15 that pay the next one need 30 ms more.
    assert steady.seconds(15, 0.030, 0.16) == pytest.approx(0.030)
    assert rare.seconds(1, -5.0, 0.16) == pytest.approx(0.04)  # a clock that was set back


def test_one_slow_epoch_makes_none_of_those_after_it_wait_longer() -> None:
    linger = linger_of(0.010, rate=20.0)
    linger.learn(1, 0.500, 1.0)
    assert linger.seconds(1, 0.0, 0.16) == pytest.approx(0.04)


def test_after_a_pause_of_an_hour_the_rate_is_learnt_anew_within_some_epochs() -> None:
    linger, moment = linger_of(0.010, rate=400.0), 3600.0
    for _ in range(6):
        linger.learn(20, 0.010, moment)
        moment += 0.05
    assert linger.seconds(2, 0.0, 0.16) == pytest.approx(0.02, rel=0.3)
