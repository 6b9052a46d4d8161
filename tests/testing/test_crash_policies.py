from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from headrace.testing import VirtualClock, every_step, once
from headrace.testing.records import append_table, record_json


def test_every_step_crashes_once_after_each_and_lets_the_epoch_through_then() -> None:
    policy = every_step()
    steps = [("read", 0), ("table:a", 0), ("table:b", 0), ("commit", 0)]
    assert all(policy(0, step, count) for step, count in steps)
    assert not any(policy(0, step, count) for step, count in steps)
    assert policy(1, "read", 0)


def test_a_sample_of_crashes_is_the_same_for_the_same_seed() -> None:
    def sample(seed: int) -> list[bool]:
        policy = every_step(share=0.5, seed=seed)
        return [policy(epoch, "read", 0) for epoch in range(50)]

    assert sample(7) == sample(7)
    assert sample(7) != sample(8)
    assert 10 < sum(sample(7)) < 40


def test_once_crashes_at_the_step_or_at_one_of_its_kind() -> None:
    policy = once("table")
    assert [policy(0, step, 0) for step in ("read", "tables", "table:a", "table:b")] == [
        False,
        False,
        True,
        False,
    ]


def test_the_clock_stands_still_until_it_is_moved_and_may_go_back() -> None:
    clock = VirtualClock("2026-03-01T12:00:00+01:00")
    assert clock() == clock() == datetime(2026, 3, 1, 11, tzinfo=UTC)
    clock.move(timedelta(minutes=-1))
    assert clock() == datetime(2026, 3, 1, 10, 59, tzinfo=UTC)


def test_a_record_keeps_all_digits_of_its_decimals_and_writes_times_in_iso() -> None:
    record = {
        "a": Decimal("12345678901234567890.10"),
        "b": {"c": [Decimal("0.1")]},
        "at": datetime(2026, 3, 1, tzinfo=UTC),
    }
    written = '{"a": 12345678901234567890.10, "b": {"c": [0.1]}, "at": "2026-03-01T00:00:00+00:00"}'
    assert record_json(record) == written


def test_a_record_with_something_that_json_cannot_say_is_refused() -> None:
    with pytest.raises(TypeError, match="a record cannot hold set"):
        record_json({"a": {1}})


def test_a_redriven_record_carries_the_address_it_stands_for() -> None:
    table = append_table([b"{}"], address="3:17")
    assert table.column("headers").to_pylist() == [[{"key": "headrace.address", "value": b"3:17"}]]
