"""When windows close, and what stops the clock that closes them."""

import threading
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

import headrace as hr
from headrace.testing import PipelineTest

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
SECOND = timedelta(seconds=1)


def windows(where: str = "") -> hr.Pipeline:
    pipeline = hr.Pipeline("closing")
    pipeline.stream(
        "events",
        schema="id VARCHAR NOT NULL, seen TIMESTAMP NOT NULL, v INT",
        event_time="seen",
        allowed_lateness="5 minutes",
        future_tolerance="1 minute",
    )
    pipeline.table(
        "tens",
        f"SELECT window_start, count(*) AS n FROM events {where} GROUP BY window(seen, '10 minutes')",
    )
    return pipeline


def event(seen: datetime, v: int = 1) -> dict[str, Any]:
    return {"id": "a", "seen": seen.isoformat(), "v": v}


def frontier(test: PipelineTest) -> datetime | None:
    return test.store.status().partitions[0].frontier


def frontiers(test: PipelineTest) -> list[datetime | None]:
    return [place.frontier for place in test.store.status().partitions if place.lane == "main"]


def closed_through(test: PipelineTest) -> datetime | None:
    return test.store.status().tables[0].closed_through


def corrections(test: PipelineTest) -> int:
    return test.ledger().tables[0].corrections


def test_a_record_from_the_future_of_the_clock_does_not_take_the_frontier_with_it() -> None:
    with PipelineTest(windows(), start=NOON) as test:
        test.send("events", event(NOON), at=NOON + 60 * MINUTE)
        test.clock.time = NOON + MINUTE
        test.run()
        assert frontier(test) == NOON + MINUTE


def test_a_proof_that_the_end_was_reached_counts_five_seconds_less() -> None:
    with PipelineTest(windows(), start=NOON) as test:
        test.send("events", event(NOON))
        test.run()
        # The window 12:00 - 12:10 closes when the frontier is behind 12:15.
        test.advance(15 * MINUTE + 5 * SECOND)
        assert closed_through(test) is None or closed_through(test) < NOON + 10 * MINUTE
        test.advance(SECOND)
        assert closed_through(test) == NOON + 10 * MINUTE
        assert frontier(test) == NOON + 15 * MINUTE + SECOND


def test_a_load_stops_the_idle_clock_and_its_end_lets_it_go_on() -> None:
    with PipelineTest(windows(), start=NOON) as test:
        test.send("events", event(NOON))
        test.run()
        with test.log("events").load():
            test.advance("2 hours")
            assert frontier(test) == NOON
        test.run()
        assert closed_through(test) >= NOON + 10 * MINUTE


@pytest.mark.parametrize("rows_max", [None, 3])
def test_nothing_closes_between_the_first_record_of_loaded_history_and_its_last(rows_max: int | None) -> None:
    yesterday = NOON - timedelta(days=1)
    with PipelineTest(windows(), start=NOON) as test:
        test.send("events", event(NOON))
        test.run()
        before = closed_through(test)
        with test.log("events").load():
            for minute in range(30):
                at = yesterday + minute * MINUTE
                test.send("events", event(at), at=at)
            test.step(rows_max=3)
            test.send("events", event(NOON + 60 * MINUTE), at=NOON + 60 * MINUTE)
            while test.step(rows_max=rows_max):
                assert closed_through(test) == before
            test.send("events", event(yesterday + 30 * MINUTE), at=yesterday + 30 * MINUTE)
        while test.step(rows_max=rows_max):
            pass
        assert closed_through(test) == NOON + 50 * MINUTE
        # They came for windows that time had closed before the load began, however often was read.
        assert corrections(test) == 31


def test_the_partition_that_is_furthest_behind_says_what_is_closed_and_no_frontier_goes_back() -> None:
    with PipelineTest(windows(), partitions=2, start=NOON) as test, test.log("events").load():
        test.send("events", event(NOON + 5 * MINUTE), at=NOON + 5 * MINUTE, partition=1)
        test.send("events", event(NOON + 30 * MINUTE), at=NOON + 30 * MINUTE, partition=0)
        test.run()
        reached = [NOON + 30 * MINUTE, NOON + 5 * MINUTE]
        assert frontiers(test) == reached
        assert closed_through(test) == NOON - 10 * MINUTE  # what ends at 12:00 closes behind 12:05
        for back in (2 * MINUTE, 30 * MINUTE - 30 * SECOND):
            test.send("events", event(NOON + back), at=NOON + back, partition=0)
            test.run()
            assert frontiers(test) == reached


def test_nothing_closes_while_a_partition_has_shown_nothing_and_its_end_is_not_proved() -> None:
    with PipelineTest(windows(), partitions=2, start=NOON) as test:
        with test.log("events").load():
            for minute in (0, 60):
                test.send("events", event(NOON + minute * MINUTE), at=NOON + minute * MINUTE, partition=0)
            test.run()
            assert frontiers(test) == [NOON + 60 * MINUTE, None]
            assert closed_through(test) is None
        test.run()
        assert closed_through(test) == NOON + 50 * MINUTE


def test_what_is_closed_follows_the_frontier_also_where_no_window_is() -> None:
    with PipelineTest(windows(), start=NOON) as test:
        test.send_bytes("events", b"bad", at=NOON + 60 * MINUTE)
        test.run()
        assert closed_through(test) == NOON + 50 * MINUTE


@pytest.mark.parametrize("cut", [False, True])
def test_only_records_that_a_table_keeps_are_corrections(cut: bool) -> None:
    with PipelineTest(windows("WHERE v = 1"), start=NOON) as test:
        test.send("events", event(NOON))
        test.advance("1 hour")
        back = NOON + 2 * MINUTE
        test.send("events", [event(NOON + MINUTE, 0)] * 9, at=back)
        if cut:
            test.run()
        test.send("events", event(NOON + MINUTE), at=back)
        test.send("events", event(NOON + 60 * MINUTE), at=NOON + 60 * MINUTE)
        test.run()
        assert corrections(test) == 1
        assert test.table("tens")[0]["n"] == 2


def test_history_with_record_times_of_its_own_beside_a_running_engine_is_all_accepted() -> None:
    with PipelineTest(windows(), start=NOON) as test:
        stop = threading.Event()
        test.send("events", event(NOON))
        test.run()
        with test.log("events").load():
            for day in range(3):
                at = NOON - timedelta(days=365 - day)
                test.send("events", event(at), at=at)
                test.run()
        test.engine.run(stop, until_caught_up=True)
        assert test.outcomes("events") == {"accepted": 4}
        assert [row["n"] for row in test.table("tens")] == [1, 1, 1, 1]
