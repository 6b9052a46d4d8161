"""Copies are found wherever batches are cut, also in history that is loaded beside a running engine."""

import random
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

import headrace as hr
from headrace.testing import PipelineTest

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


def counted() -> hr.Pipeline:
    pipeline = hr.Pipeline("copies")
    pipeline.stream(
        "events",
        schema="id VARCHAR NOT NULL, seen TIMESTAMP NOT NULL",
        event_time="seen",
        allowed_lateness="5 minutes",
        future_tolerance="1 minute",
        unique="id",
    )
    pipeline.table("total", "SELECT count(*) AS n FROM events")
    return pipeline


def event(name: str, seen: datetime) -> dict[str, Any]:
    return {"id": name, "seen": seen.isoformat()}


def remembered(test: PipelineTest) -> int:
    found = test.store.connection.execute('SELECT count(*) FROM _headrace."keys_events"').fetchall()
    return int(found[0][0])


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(6))
def test_copies_in_a_load_beside_a_running_engine_are_found_however_reads_are_cut(seed: int) -> None:
    chance = random.Random(seed)
    with PipelineTest(counted(), start=NOON, cuts=seed) as test:
        test.send("events", event("live", NOON))
        test.advance("1 minute")
        live = 1
        with test.log("events").load():
            for minute in range(40):
                at = NOON - timedelta(days=200) + minute * MINUTE
                # Each record has a copy five minutes of record time behind it.
                test.send("events", event(f"h{minute}", at), at=at)
                test.send("events", event(f"h{minute - 5}", at - 5 * MINUTE), at=at)
                if chance.random() < 0.3:  # live records come in between, and the frontier goes on
                    test.clock.move(timedelta(minutes=chance.choice([1, 7, 30])))
                    test.send("events", event(f"live{minute}", test.clock.time))
                    live += 1
                if chance.random() < 0.5:
                    test.step()
        test.run()
        # The first five copies have nothing that they are copies of.
        assert test.outcomes("events") == {"accepted": 45 + live, "duplicate": 35}
        assert test.table("total") == [{"n": 45 + live}]


@pytest.mark.parametrize("cut", [False, True])
def test_copies_that_no_load_announced_are_found_while_the_frontier_moves_by_less_than_the_horizon(
    cut: bool,
) -> None:
    june = datetime(2025, 6, 1, tzinfo=UTC)
    with PipelineTest(counted(), start=NOON) as test:
        test.send("events", event("z", NOON))
        test.advance("1 minute")
        for copy in range(2):
            for number in range(30):
                test.send("events", event(str(number), june), at=june)
            if cut:
                test.run()
            test.clock.move(3 * MINUTE)
            test.send("events", event(f"live{copy}", NOON + (4 + 3 * copy) * MINUTE))
            if cut:
                test.run()
        test.run()
        assert test.outcomes("events") == {"accepted": 33, "duplicate": 30}


def test_a_copy_is_a_duplicate_to_the_end_of_its_lateness_and_late_behind_it() -> None:
    with PipelineTest(counted(), start=NOON) as test:
        test.send("events", event("a", NOON))
        test.run()
        test.send("events", event("a", NOON), at=NOON + 5 * MINUTE)
        test.run()
        assert test.outcomes("events") == {"accepted": 1, "duplicate": 1}
        test.send("events", event("a", NOON), at=NOON + 5 * MINUTE + timedelta(microseconds=1))
        test.run()
        assert test.outcomes("events") == {"accepted": 1, "duplicate": 1, "late": 1}
        test.send("events", event("b", NOON + 30 * MINUTE), at=NOON + 30 * MINUTE)
        test.run()
        assert remembered(test) == 1  # only what a copy may still come for
        test.send("events", event("a", NOON))
        test.run()
        assert test.outcomes("events") == {"accepted": 2, "duplicate": 1, "late": 2}


def test_a_clock_that_steps_back_by_the_tolerance_lets_no_copy_through() -> None:
    with PipelineTest(counted(), start=NOON) as test:
        test.send("events", event("a", NOON))
        test.run()
        test.send("events", event("b", NOON + 6 * MINUTE), at=NOON + 6 * MINUTE)
        test.run()
        test.send("events", event("a", NOON), at=NOON + 5 * MINUTE)
        test.run()
        assert test.outcomes("events") == {"accepted": 2, "duplicate": 1}


def test_values_are_forgotten_again_once_a_load_is_over_and_read() -> None:
    with PipelineTest(counted(), start=NOON) as test:
        test.send("events", event("live", NOON))
        test.run()
        with test.log("events").load():
            for number in range(20):
                test.send(
                    "events",
                    event(f"h{number}", datetime(2025, 6, 1, tzinfo=UTC)),
                    at=datetime(2025, 6, 1, tzinfo=UTC),
                )
            test.advance("1 hour")
            test.send("events", event("later", NOON + 60 * MINUTE))
            test.run()
            assert remembered(test) == 22
        test.run()
        test.send("events", event("last", NOON + 61 * MINUTE), at=NOON + 61 * MINUTE)
        test.run()
        assert remembered(test) <= 2
