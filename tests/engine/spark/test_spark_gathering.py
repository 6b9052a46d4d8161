"""A micro-batch fits on what the store holds, or is known to be there already, or stops the run."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pytest

from headrace.engine.spark.gathering import Gathered, gather
from headrace.engine.spark.wire import dumped
from headrace.errors import IntegrityError, RefusedError
from headrace.store.instants import micros_of
from headrace.store.progress import LaneProgress, Progress

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
PLACE = "events/main"
TIMES = pa.timestamp("us", "UTC")


def part(start: int, next_: int, partition: int = 0) -> tuple[str, bytes]:
    offsets = list(range(start, next_))
    records = pa.table(
        {
            "partition": pa.array([partition] * len(offsets), pa.int32()),
            "offset": pa.array(offsets, pa.int64()),
            "record_time": pa.array([NOW] * len(offsets), TIMES),
        }
    )
    facts: dict[str, Any] = {
        "partition": partition, "start": start, "next": next_, "gaps": 0, "lost": 0, "bytes": 8,
        "records": records, "timely": records, "late": records, "dead": records, "rules": records,
    }  # fmt: skip
    return PLACE, dumped(facts)


def end(
    at: dict[str, int],
    ends: dict[str, int] | None = None,
    loading: tuple[str, ...] = (),
    readable: dict[str, int] | None = None,
) -> Any:
    offset = {
        "readable": {PLACE: readable or ends or at},
        "at": {PLACE: at},
        "ends": {PLACE: ends or at},
        "asked": micros_of(NOW),
        "loading": list(loading),
    }
    return "", dumped({"end": offset})


def stands(*following: int) -> Progress:
    places = {number: LaneProgress(start=0, next=at) for number, at in enumerate(following)}
    return Progress(lanes={"events": {"main": places}})


def taken(progress: Progress, *found: tuple[str, bytes]) -> Gathered:
    return gather(progress, found, NOW)


def test_parts_of_one_range_become_one_slice_in_their_order() -> None:
    found = taken(stands(4, 0), end({"0": 9, "1": 0}), part(7, 9), part(4, 7))
    (batch,) = found.batches
    assert batch.slice.records.column("offset").to_pylist() == [4, 5, 6, 7, 8]
    assert batch.slice.next == {0: 9, 1: 0}
    assert (found.repeated, found.caught_up) == (False, True)


def test_a_partition_is_idle_only_at_its_very_end_and_while_nothing_is_loaded() -> None:
    (batch,) = taken(stands(0, 0), end({"0": 2, "1": 0}, {"0": 2, "1": 5}), part(0, 2)).batches
    assert batch.slice.idle_since == {0: NOW}
    (batch,) = taken(stands(0), end({"0": 2}, loading=("events",)), part(0, 2)).batches
    assert batch.slice.idle_since == {}


def test_an_open_transaction_keeps_its_partition_from_being_idle_but_not_a_run_from_being_caught_up() -> None:
    found = taken(stands(0), end({"0": 2}, {"0": 9}, readable={"0": 2}), part(0, 2))
    assert found.caught_up
    assert found.batches[0].slice.idle_since == {}


def test_what_the_store_holds_already_is_repeated() -> None:
    assert taken(stands(9), end({"0": 9}), part(4, 9)).repeated


@pytest.mark.parametrize(
    ("following", "found"),
    [
        (3, [end({"0": 9}), part(4, 9)]),  # the store stands before it
        (5, [end({"0": 9}), part(4, 9)]),  # the store holds a part of it
        (4, [end({"0": 9}), part(4, 6), part(7, 9)]),  # something is missing inside
        (4, [end({"0": 9}), part(4, 8)]),  # and at its end
        (4, [end({"0": 9})]),
        (4, [part(4, 9)]),  # nobody says where it ends
    ],
)
def test_a_micro_batch_with_a_hole_stops_the_run(following: int, found: list[tuple[str, bytes]]) -> None:
    with pytest.raises(IntegrityError):
        taken(stands(following), *found)


def test_what_an_executor_met_is_raised_as_it_was() -> None:
    error = RefusedError("the user may not use this topic", fix="ask")
    with pytest.raises(RefusedError, match="may not use this topic") as raised:
        taken(stands(0), end({"0": 1}), ("", dumped({"error": error})))
    assert raised.value.fix == "ask"
