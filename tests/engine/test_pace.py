"""How large an epoch is, and how slices are read ahead of it."""

from __future__ import annotations

import threading
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pytest

from headrace.engine.local.ahead import ReadAhead
from headrace.engine.local.pace import Pace
from headrace.engine.local.reader import FEW, Batch
from headrace.errors import TransientError
from headrace.log.backoff import Waiting
from headrace.log.protocol import RECORD_SCHEMA, Slice

NOW = datetime(2026, 1, 1, tzinfo=UTC)
PLACE = ("events", "main")
PATIENCE = 10.0


def test_the_first_epoch_is_small_and_the_next_ones_grow_with_the_speed() -> None:
    pace = Pace(125_000)
    assert pace.rows <= 20_000
    pace.learn(pace.rows, 0.1)
    assert 20_000 < pace.rows < 125_000
    pace.learn(pace.rows, 0.1)
    assert pace.rows == 125_000


def test_an_epoch_that_took_too_long_is_followed_by_a_smaller_one() -> None:
    pace = Pace(125_000)
    pace.learn(16_000, 4.8)
    assert pace.rows == 4_000
    pace.learn(4_000, 1_000.0)
    assert pace.rows == 2_000


def test_an_epoch_that_was_not_full_says_nothing_about_the_speed() -> None:
    pace = Pace(125_000)
    before = pace.rows
    pace.learn(3, 0.05)
    assert pace.rows == before


def test_the_most_rows_of_an_epoch_hold_from_the_first_one_on() -> None:
    pace = Pace(7)
    assert pace.rows == 7
    pace.learn(7, 0.001)
    pace.learn(7, 100.0)
    assert pace.rows == 7


def test_the_most_rows_of_an_epoch_may_change_on_the_way() -> None:
    pace = Pace(125_000)
    pace.rows_max = 100
    assert pace.rows == 100
    pace.learn(100, 0.001)
    assert pace.rows == 100
    pace.rows_max = 125_000
    pace.learn(pace.rows, 0.001)
    pace.learn(pace.rows, 0.001)
    assert pace.rows > 1_000


class _Reader:
    """Gives slices of `sizes`, one for each look, then empty ones."""

    def __init__(self, *sizes: int, fails: str = "", down: tuple[str, ...] = ()) -> None:
        self.sizes, self.fails, self.down = list(sizes), fails, list(down)
        self.at = 0
        self.streams = ("events",)
        self.looked = threading.Semaphore(0)

    def look(self, positions: Any, **settings: Any) -> list[Batch]:
        if self.fails == "look":
            raise RuntimeError("look")
        self.may_be_down("look")
        assert positions[PLACE] == {0: self.at}
        size = self.sizes.pop(0) if self.sizes else 0
        self.at += size
        records = pa.Table.from_pylist(
            [{"partition": 0, "offset": n, "record_time": NOW} for n in range(size)], schema=RECORD_SCHEMA
        )
        self.looked.release()
        return [Batch(*PLACE, Slice(records, {0: self.at}), NOW)]

    def decode(self, batches: list[Batch]) -> None:
        if self.fails == "decode":
            raise RuntimeError("decode")
        self.may_be_down("decode")

    def may_be_down(self, step: str) -> None:
        if step in self.down:
            self.down.remove(step)
            raise TransientError(f"{step} is not ready")


def ahead_of(reader: _Reader, pauses: list[Waiting | None] | None = None) -> ReadAhead:
    """Return a started read-ahead over `reader`."""
    ahead = ReadAhead(
        reader,  # type: ignore[arg-type]
        {PLACE: {0: 0}},
        rows=lambda: 100_000,
        linger=lambda found, age: 0.0,
        waiting=([] if pauses is None else pauses).append,
    )
    ahead.start()
    return ahead


def following(ahead: ReadAhead) -> int:
    """Return how many records the next slice has."""
    for _ in range(50):
        batches = ahead.next()
        if batches is not None:
            return sum(batch.slice.records.num_rows for batch in batches)
    raise AssertionError("no slice came")


def test_slices_come_in_the_order_in_which_they_were_read() -> None:
    ahead = ahead_of(_Reader(FEW, FEW + 1, FEW + 2, 3))
    try:
        assert [following(ahead) for _ in range(5)] == [FEW, FEW + 1, FEW + 2, 3, 0]
    finally:
        ahead.close()


def test_large_slices_are_read_while_the_one_before_is_written() -> None:
    reader = _Reader(FEW, FEW, FEW, FEW)
    ahead = ahead_of(reader)
    try:
        assert following(ahead) == FEW
        assert all(reader.looked.acquire(timeout=PATIENCE) for _ in range(3))
    finally:
        ahead.close()


def test_after_a_small_slice_nothing_is_read_before_it_is_asked_for() -> None:
    reader = _Reader(3, 4)
    ahead = ahead_of(reader)
    try:
        assert following(ahead) == 3
        assert reader.looked.acquire(timeout=PATIENCE)
        assert not reader.looked.acquire(timeout=0.05)
        assert following(ahead) == 4
    finally:
        ahead.close()


@pytest.mark.parametrize("stage", ["look", "decode"])
def test_an_error_of_a_stage_is_raised_where_the_epochs_are_written(stage: str) -> None:
    ahead = ahead_of(_Reader(FEW, fails=stage))
    try:
        with pytest.raises(RuntimeError, match=stage):
            following(ahead)
    finally:
        ahead.close()


def test_closing_ends_both_threads_although_nobody_takes_what_they_hold() -> None:
    before = threading.active_count()
    ahead = ahead_of(_Reader(*[FEW] * 10))
    ahead.close()
    assert threading.active_count() == before


def test_three_large_slices_are_held_at_most() -> None:
    reader = _Reader(*[FEW] * 9)
    ahead = ahead_of(reader)
    try:
        for taken in range(1, 6):
            assert following(ahead) == FEW
            assert reader.at <= (taken + 2) * FEW  # one is written, one is decoded, one was read
    finally:
        ahead.close()


def test_a_log_and_a_registry_that_are_not_ready_are_asked_again_and_nothing_is_lost() -> None:
    pauses: list[Waiting | None] = []
    ahead = ahead_of(_Reader(FEW, 3, down=("look", "decode", "look")), pauses)
    try:
        assert [following(ahead) for _ in range(3)] == [FEW, 3, 0]
    finally:
        ahead.close()
    told = [pause and (pause.error.message, pause.attempt) for pause in pauses]
    assert sorted(told[:5], key=str) == sorted(
        [("look is not ready", 1), ("look is not ready", 2), None, ("decode is not ready", 1), None], key=str
    )
