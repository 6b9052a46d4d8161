"""The redrive lane beside the main lane: one record counts once, wherever batches are cut."""

import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pyarrow as pa
import pytest

import headrace as hr
from headrace.testing import PipelineTest

NOON = "2026-01-01T12:00:00"
Redrives = list[tuple[int, dict[str, Any]]]
"""Offsets of dead letters in the main lane, and what is redriven for each."""


def lanes(*, unique: bool = True, keep: str | None = None) -> hr.Pipeline:
    pipeline = hr.Pipeline("lanes")
    pipeline.stream(
        "events",
        schema="id VARCHAR NOT NULL, seen TIMESTAMP NOT NULL",
        event_time="seen",
        allowed_lateness="5 minutes",
        unique="id" if unique else (),
    )
    pipeline.table("total", "SELECT count(*) AS n FROM events")
    if keep is not None:
        pipeline.table(
            "sliding",
            "SELECT window_start, count(*) AS n FROM events "
            "GROUP BY window(seen, '60 minutes', '10 minutes')",
            keep=keep,
        )
    return pipeline


def event(name: str, seen: str = NOON) -> dict[str, Any]:
    return {"id": name, "seen": seen}


@pytest.mark.parametrize("cut", [False, True])
def test_a_redriven_copy_of_a_record_counts_once_in_one_epoch_and_in_two(cut: bool) -> None:
    with PipelineTest(lanes(), start=NOON) as test:
        test.send_bytes("events", b"bad")
        test.run()
        test.send("events", event("a"))
        if cut:
            test.run()
        test.redrive("events", 0, 0, event("a"))
        test.run()
        assert test.table("total") == [{"n": 1}]
        assert test.outcomes("events") == {"malformed": 1, "accepted": 1}
        assert test.outcomes("events", lane="redrive") == {"duplicate": 1}


def test_a_dead_letter_that_is_redriven_in_the_epoch_that_reads_it_is_accepted() -> None:
    with PipelineTest(lanes(), start=NOON) as test:
        test.send_bytes("events", b"bad")
        test.redrive("events", 0, 0, event("a"))
        test.run()
        assert test.outcomes("events", lane="redrive") == {"accepted": 1}


def test_a_redriven_record_moves_no_frontier() -> None:
    with PipelineTest(lanes(), start=NOON) as test:
        test.send_bytes("events", b"bad")
        test.run()
        before = test.store.status().partitions
        test.clock.move(timedelta(hours=1))
        test.redrive("events", 0, 0, event("a", "2026-01-01T13:00:00"))
        with test.log("events").load():  # so that the end of the main lane proves nothing
            test.run()
        assert test.outcomes("events", lane="redrive") == {"accepted": 1}
        frontiers = {place.lane: place.frontier for place in test.store.status().partitions}
        assert frontiers == {place.lane: place.frontier for place in before}
        assert frontiers["main"] is not None
        assert frontiers["redrive"] is None


def redriven(records: Redrives, cuts: int | None, between: Callable[[PipelineTest], None]) -> Any:
    """What comes of redriving `records` one after the other, with `between` done between two of them."""
    with PipelineTest(lanes(), start=NOON, cuts=cuts) as test:
        test.send_bytes("events", [b"bad", b"bad"])
        test.send("events", event("a"))
        test.run()
        for offset, record in records:
            test.redrive("events", 0, offset, record)
            between(test)
        test.run()
        assert test.ledger().balanced
        return test.outcomes("events", lane="redrive"), test.query("SELECT n FROM total")


def nothing(test: PipelineTest) -> None:
    """All is redriven in one epoch."""


def an_epoch(test: PipelineTest) -> None:
    test.run()


def an_hour(test: PipelineTest) -> None:
    test.advance("1 hour")


@pytest.mark.parametrize("cuts", [None, 1, 2])
@pytest.mark.parametrize("between", [nothing, an_epoch, an_hour])
def test_an_address_is_accepted_at_most_once_and_a_copy_does_not_take_it(
    cuts: int | None, between: Callable[[PipelineTest], None]
) -> None:
    records = [(0, event("a")), (0, event("b")), (0, event("c"))]
    outcomes, _ = redriven(records, cuts, between)
    assert outcomes == {"accepted": 1, "duplicate": 2}


@pytest.mark.parametrize("cuts", [None, 1, 2])
@pytest.mark.parametrize("between", [nothing, an_epoch, an_hour])
def test_two_letters_corrected_to_one_record_count_once_however_far_apart(
    cuts: int | None, between: Callable[[PipelineTest], None]
) -> None:
    outcomes, total = redriven([(0, event("x")), (1, event("x"))], cuts, between)
    assert outcomes == {"accepted": 1, "duplicate": 1}
    assert total == [{"n": 2}]


def test_an_address_that_was_not_set_aside_counts_already() -> None:
    with PipelineTest(lanes(unique=False), start=NOON) as test:
        test.send("events", event("a"))
        test.run()
        test.redrive("events", 0, 0, event("a"))
        test.redrive("events", 0, 99, event("b"))
        test.run()
        assert test.table("total") == [{"n": 1}]
        assert test.outcomes("events", lane="redrive") == {"duplicate": 2}


def test_a_redriven_record_that_names_an_address_no_log_has_counts_as_one_of_its_own() -> None:
    with PipelineTest(lanes(unique=False), start=NOON) as test:
        lane = test._logs["events"].lane("redrive")
        for partition, offset in ((99_999_999_999, 1), (2**31, 0), (0, 2**63)):
            test.redrive("events", partition, offset, event("a"))
        value = pa.array([json.dumps(event("b")).encode()], pa.binary())
        header = {"key": "headrace.address", "value": b"0:" + b"9" * 5000}
        kind = pa.list_(pa.struct([("key", pa.string()), ("value", pa.binary())]))
        lane.append(pa.table({"value": value, "headers": pa.array([[header]], kind)}))
        test.run()
        assert test.outcomes("events", lane="redrive") == {"accepted": 4}


def test_a_late_row_can_be_redriven_once() -> None:
    with PipelineTest(lanes(unique=False), start=NOON) as test:
        late = event("a", "2026-01-01T11:00:00")
        test.send("events", late)
        test.run()
        assert test.outcomes("events") == {"late": 1}
        test.redrive("events", 0, 0, late)
        test.redrive("events", 0, 0, late)
        test.run()
        assert test.outcomes("events", lane="redrive") == {"accepted": 1, "duplicate": 1}


def test_a_redriven_row_that_is_in_a_retired_window_expires_and_overwrites_nothing() -> None:
    with PipelineTest(lanes(unique=False, keep="3 hours"), start="2026-01-01T00:00:00") as test:
        test.send_bytes("events", [b"bad"] * 3)
        test.run()
        for minute in range(0, 12 * 60, 10):
            seen = f"2026-01-01T{minute // 60:02}:{minute % 60:02}:00"
            test.send("events", [event("a", seen)] * 5, at=seen)
            test.run()
        before = test.table("sliding")
        first = min(row["window_start"] for row in before)
        test.redrive("events", 0, 0, event("r", "2026-01-01T00:00:00"))
        test.run()
        assert test.outcomes("events", lane="redrive") == {"expired": 1}
        (through,) = [line.retired_through for line in test.store.status().tables if line.table == "sliding"]
        assert through == first + timedelta(minutes=50), "the end of the last window that is gone"
        last = first - timedelta(seconds=1)
        test.redrive("events", 0, 2, event("r", last.replace(tzinfo=None).isoformat()))
        test.run()
        assert test.outcomes("events", lane="redrive") == {"expired": 2}
        assert test.table("sliding") == before
        # Windows of an hour that begin every ten minutes: this row is in some that are gone, which do not
        # come back with this row alone, and in some that are there.
        test.redrive("events", 0, 1, event("r", first.replace(tzinfo=None).isoformat()))
        test.run()
        after = test.table("sliding")
        assert after[0] == {"window_start": first, "n": before[0]["n"] + 1}
        assert after[1:] == before[1:]
        assert test.ledger().balanced
