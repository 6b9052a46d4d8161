"""Where a micro-batch ends: at one record time in all partitions, within its bound, and always further on."""

from __future__ import annotations

import random
from bisect import bisect_left
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from headrace.engine.spark.cutting import Place, cut
from headrace.engine.spark.pace import (
    RANGE_ROWS_LEAST,
    ROWS_AT_FIRST,
    range_rows,
    rows_allowed,
    slow_down,
    tell_pace,
)

NOW = 2_000_000

Times = Mapping[Place, list[int]]


def offsets_of(times: Times) -> Callable[[int], dict[Place, int]]:
    def offsets_at(time: int) -> dict[Place, int]:
        found = {place: bisect_left(column, time) for place, column in times.items()}
        return {place: at for place, at in found.items() if at < len(times[place])}

    return offsets_at


def ends_of(times: Times) -> dict[Place, int]:
    return {place: len(column) for place, column in times.items()}


def place(number: int) -> Place:
    return ("events", "main", number)


def test_what_fits_is_taken_whole() -> None:
    times = {place(0): [1, 2, 3], place(1): [5]}
    found, moment = cut(dict.fromkeys(times, 0), ends_of(times), 4, offsets_of(times), since=0, until=NOW)
    assert found == {place(0): 3, place(1): 1}
    assert moment == NOW


def test_a_partition_that_is_behind_is_read_up_to_the_time_of_the_others() -> None:
    times = {place(0): list(range(0, 1000)), place(1): list(range(600_000, 601_000))}
    found, moment = cut(dict.fromkeys(times, 0), ends_of(times), 400, offsets_of(times), since=0, until=NOW)
    assert found[place(1)] == 0
    assert 0 < found[place(0)] <= 400
    assert moment == found[place(0)]


def test_one_millisecond_with_more_than_a_batch_is_cut_inside() -> None:
    times = {place(0): [7] * 500, place(1): [7] * 1500, place(2): [9]}
    starts = dict.fromkeys(times, 0)
    found, _ = cut(starts, ends_of(times), 100, offsets_of(times), since=0, until=NOW)
    assert 0 < sum(found.values()) <= 100
    assert found[place(2)] == 0


@pytest.mark.parametrize("seed", range(20))
def test_batches_reach_the_end_in_record_time_order_whatever_the_partitions_hold(seed: int) -> None:
    chance = random.Random(seed)
    times: Times = {
        place(number): sorted(
            chance.randrange(chance.choice((10, 1000, NOW))) for _ in range(chance.choice((0, 1, 50, 700)))
        )
        for number in range(chance.randrange(1, 5))
    }
    at, since, rows_max = dict.fromkeys(times, 0), 0, chance.choice((1, 10, 100))
    while at != ends_of(times):
        found, moment = cut(at, ends_of(times), rows_max, offsets_of(times), since=since, until=NOW)
        moved = [times[one][at[one] : found[one]] for one in times]
        left = [times[one][found[one]] for one in times if found[one] < len(times[one])]
        assert 0 < sum(map(len, moved)) <= rows_max
        assert all(before <= min(left, default=NOW) for some in moved for before in some)
        at, since = found, moment


def test_a_micro_batch_is_small_until_the_size_of_records_is_known(tmp_path: Path) -> None:
    path = str(tmp_path / "pace")
    assert rows_allowed(path, 1_000_000) == ROWS_AT_FIRST
    assert rows_allowed(path, 10) == 10
    tell_pace(path, rows=20_000, size=20_000 * 200, seconds=1.0, bytes_max=100_000_000, cores=2)
    assert rows_allowed(path, 1_000_000) == 200_000
    tell_pace(path, rows=20_000, size=20_000 * 100_000, seconds=1.0, bytes_max=256_000_000, cores=2)
    assert rows_allowed(path, 1_000_000) == 20_000
    tell_pace(path, rows=0, size=0, seconds=1.0, bytes_max=1, cores=2)
    assert rows_allowed(path, 1_000_000) == 20_000


def test_ranges_are_as_short_as_every_core_needs_and_no_shorter_than_a_task_is_worth(tmp_path: Path) -> None:
    path = str(tmp_path / "pace")
    assert range_rows(path, 250_000, 100_000) == 100_000  # no cluster is known yet
    tell_pace(path, rows=1_000, size=1_000, seconds=1.0, bytes_max=1_000_000, cores=16)
    assert range_rows(path, 250_000, 100_000) == 15_625
    assert range_rows(path, 40_000, 100_000) == RANGE_ROWS_LEAST
    assert range_rows(path, 250_000, 5_000) == 5_000
    slow_down(path)
    assert range_rows(path, 250_000, 100_000) == 15_625
    tell_pace(path, rows=1_000, size=1_000, seconds=1.0, bytes_max=1_000_000, cores=2)
    assert range_rows(path, 250_000, 100_000) == 100_000
