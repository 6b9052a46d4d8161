"""A copy of a log: what stays, and what a death in the middle changes (nothing)."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from headrace.errors import IntegrityError, RefusedError, TransientError
from headrace.log import APPEND_SCHEMA, Appended, EmbeddedLog, open_embedded_log
from headrace.log.backoff import Waiting
from headrace.log.between import read_between
from headrace.log.headers import COPIED_HEADER
from headrace.operate import log_copy
from headrace.operate.log_copy import copy_log, copy_redrive_lane
from headrace.operate.waiting import WaitingWords

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


def append(log: EmbeddedLog, *rows: dict[str, Any]) -> None:
    empty = dict.fromkeys(APPEND_SCHEMA.names)
    log.append(pa.Table.from_pylist([{**empty, **row} for row in rows], schema=APPEND_SCHEMA))


def contents(log: EmbeddedLog, partition: int) -> list[tuple[Any, ...]]:
    """What must stay the same, in the order of the offsets; without the mark of the copy."""
    held = log.partitions()[partition]
    parts = list(read_between(log, {partition: held.start}, {partition: held.end}))
    rows = sorted((row for part in parts for row in part.to_pylist()), key=lambda row: row["offset"])
    return [
        (
            row["record_time"], row["key"], row["value"],
            [(h["key"], h["value"]) for h in row["headers"] or () if h["key"] != COPIED_HEADER],
        )
        for row in rows
    ]  # fmt: skip


@pytest.fixture
def logs(tmp_path: Path) -> Iterator[tuple[EmbeddedLog, EmbeddedLog]]:
    source = open_embedded_log(tmp_path / "source.db", "events", partitions=3)
    target = open_embedded_log(tmp_path / "target.db", "events", partitions=3)
    yield source, target
    source.close()
    target.close()


def filled(log: EmbeddedLog, records: int, *, seed: int = 0) -> None:
    chance = random.Random(seed)
    for start in range(0, records, 50):
        append(
            log,
            *(
                {
                    "partition": chance.randrange(3),
                    "record_time": NOON + timedelta(seconds=chance.randrange(3600)),
                    "key": None if number % 5 == 0 else b"k%d" % (number % 7),
                    "value": None if number % 11 == 0 else b'{"n": %d}' % number,
                    "headers": [{"key": "trace", "value": b"%d" % number}] if number % 3 == 0 else None,
                }
                for number in range(start, min(start + 50, records))
            ),
        )


class Impatient(threading.Event):
    """Passes pauses at once."""

    def wait(self, timeout: float | None = None) -> bool:
        return self.is_set()


def copy(source: EmbeddedLog, target: EmbeddedLog, **changes: Any) -> log_copy.CopyReport:
    return copy_log(source, target, **{"stop": Impatient(), **changes})


def assert_equal(source: EmbeddedLog, target: EmbeddedLog) -> None:
    for partition in range(3):
        assert contents(target, partition) == contents(source, partition)


def test_order_keys_headers_times_and_tombstones_stay(logs: tuple[EmbeddedLog, EmbeddedLog]) -> None:
    source, target = logs
    filled(source, 400)
    seen = []
    report = copy(source, target, on_progress=seen.append)
    assert (report.copied, report.present, report.lost, report.complete) == (400, 0, 0, True)
    assert (seen[-1].records, seen[-1].total) == (400, 400)
    assert_equal(source, target)
    filled(source, 100, seed=1)
    again = copy(source, target)
    assert (again.copied, again.present) == (100, 400)
    assert copy(source, target).copied == 0
    assert_equal(source, target)


class Dying(BaseException):
    """The process dies here."""


@pytest.mark.parametrize("seed", range(6))
def test_a_copy_that_dies_again_and_again_loses_nothing_and_copies_nothing_twice(
    logs: tuple[EmbeddedLog, EmbeddedLog], monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    source, target = logs
    chance = random.Random(seed)
    monkeypatch.setattr(log_copy, "_ROWS", 17)
    real = target.append
    left = [0]

    def die(records: pa.Table) -> Appended:
        left[0] -= 1
        if left[0] > 0:
            return real(records)
        # A prefix of each partition arrived, as with Kafka; or nothing; or everything, and no answer.
        parts = [
            records.filter(pa.array([p == n for p in records["partition"].to_pylist()])) for n in range(3)
        ]
        for part in parts:
            if arrived := chance.randrange(part.num_rows + 1):
                real(part.slice(0, arrived))
        raise Dying

    filled(source, 300, seed=seed)
    monkeypatch.setattr(target, "append", die)
    deaths = 0
    while True:
        left[0] = chance.randrange(1, 6)
        try:
            report = copy(source, target)
        except Dying:
            deaths += 1
            if deaths == 5:
                filled(source, 50, seed=seed + 100)
        else:
            break
    assert deaths > 1
    assert report.complete
    assert_equal(source, target)


def test_an_append_whose_answer_was_lost_is_not_repeated(
    logs: tuple[EmbeddedLog, EmbeddedLog], monkeypatch: pytest.MonkeyPatch
) -> None:
    source, target = logs
    filled(source, 100)
    real, failures, waits = target.append, [True, False], []

    def lose_the_answer(records: pa.Table) -> Appended:
        appended = real(records)
        if failures and failures.pop(0):
            raise TransientError("the broker went away")
        return appended

    monkeypatch.setattr(target, "append", lose_the_answer)
    monkeypatch.setattr(log_copy, "_ROWS", 30)
    report = copy(source, target, tell=waits.append)
    assert report.complete
    assert len(waits) == 2
    assert waits[1] is None
    assert_equal(source, target)


def test_each_outage_of_a_copy_is_told_when_it_begins_and_when_it_is_over(
    logs: tuple[EmbeddedLog, EmbeddedLog], monkeypatch: pytest.MonkeyPatch
) -> None:
    source, target = logs
    filled(source, 100)
    monkeypatch.setattr(log_copy, "_ROWS", 20)
    tries, down = count(1), {2, 3, 5}  # one append works between two outages
    real, pauses, words = target.append, list[int | None](), WaitingWords()
    told: list[str] = []

    def append_unless_down(records: pa.Table) -> Appended:
        if next(tries) in down:
            raise TransientError("the broker went away")
        return real(records)

    def tell(pause: Waiting | None) -> None:
        pauses.append(pause and pause.attempt)
        news = words.take(pause)
        if pause is None or news:
            told.append("ready again" if pause is None else pause.error.message)

    monkeypatch.setattr(target, "append", append_unless_down)
    assert copy(source, target, tell=tell).complete
    assert pauses == [1, 2, None, 1, None]
    assert told == ["the broker went away", "ready again"] * 2
    assert_equal(source, target)


def down_at_first(real: Callable[..., Any]) -> Callable[..., Any]:
    """Return what does the same from the second call on; at the first one, nobody answers."""
    calls = count(1)

    def answer(*given: Any, **named: Any) -> Any:
        if next(calls) == 1:
            raise TransientError("the broker went away")
        return real(*given, **named)

    return answer


def test_a_target_that_cannot_be_told_of_the_load_yet_is_waited_for(
    logs: tuple[EmbeddedLog, EmbeddedLog], monkeypatch: pytest.MonkeyPatch
) -> None:
    source, target = logs
    filled(source, 30)
    monkeypatch.setattr(target, "load", down_at_first(target.load))
    told = list[Waiting | None]()
    assert copy(source, target, tell=told.append).complete
    assert [pause and pause.attempt for pause in told] == [1, None]
    assert_equal(source, target)


@pytest.mark.parametrize("away", ["source", "target"])
def test_a_log_that_is_away_when_its_redriven_records_are_looked_for_is_waited_for(
    logs: tuple[EmbeddedLog, EmbeddedLog], monkeypatch: pytest.MonkeyPatch, away: str
) -> None:
    source, target = logs
    filled(source, 30)
    address = {"key": "headrace.address", "value": b"0:0"}
    append(source.lane("redrive"), {"value": b"corrected", "headers": [address]})
    copy(source, target)
    log = source.lane("redrive") if away == "source" else target
    monkeypatch.setattr(log, "partitions", down_at_first(log.partitions))
    told = list[Waiting | None]()
    report = copy_redrive_lane(source, target, stop=Impatient(), tell=told.append)
    assert (report.copied, report.complete) == (1, True)
    assert [pause and pause.attempt for pause in told] == [1, None]


def test_a_copy_stops_between_two_appends_and_goes_on(
    logs: tuple[EmbeddedLog, EmbeddedLog], monkeypatch: pytest.MonkeyPatch
) -> None:
    source, target = logs
    filled(source, 200)
    monkeypatch.setattr(log_copy, "_ROWS", 20)
    stop = threading.Event()
    first = copy(source, target, stop=stop, on_progress=lambda done: stop.set())
    assert not first.complete
    assert 0 < first.copied < 200
    second = copy(source, target)
    assert (second.present, second.copied, second.complete) == (first.copied, 200 - first.copied, True)
    assert_equal(source, target)


def test_a_target_that_would_mix_records_is_refused(tmp_path: Path) -> None:
    source = open_embedded_log(tmp_path / "a.db", "events", partitions=3)
    filled(source, 30)
    small = open_embedded_log(tmp_path / "small.db", "events", partitions=2)
    with pytest.raises(RefusedError, match="3 partitions, the target has 2") as refused:
        copy(source, small)
    assert "set partitions = 3" in refused.value.fix
    used = open_embedded_log(tmp_path / "used.db", "events", partitions=3)
    copy(source, used)
    append(used, {"partition": 1, "value": b"from a producer"})
    filled(source, 30)
    with pytest.raises(RefusedError, match="partition 1 of the target holds records that no copy wrote"):
        copy(source, used)
    other = open_embedded_log(tmp_path / "b.db", "events", partitions=3)
    filled(other, 30)
    target = open_embedded_log(tmp_path / "t.db", "events", partitions=4)
    copy(other, target)
    with pytest.raises(RefusedError, match="is a copy of another log"):
        copy(source, target)
    with pytest.raises(RefusedError, match="the same log in both profiles"):
        copy(source, source)
    for log in (source, small, used, other, target):
        log.close()


def test_a_source_that_was_set_back_is_noticed(tmp_path: Path) -> None:
    source = open_embedded_log(tmp_path / "a.db", "events", partitions=3)
    target = open_embedded_log(tmp_path / "t.db", "events", partitions=3)
    filled(source, 60)
    copy(source, target)
    restored = open_embedded_log(tmp_path / "b.db", "events", partitions=3)
    restored._identity = source.identity
    filled(restored, 10)
    with pytest.raises(IntegrityError, match="and the source ends at"):
        copy(restored, target)
    for log in (source, target, restored):
        log.close()


def test_what_retention_took_before_it_was_copied_is_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [NOON]
    age = timedelta(hours=1)
    source = open_embedded_log(
        tmp_path / "a.db", "events", partitions=1, retention_age=age, clock=lambda: clock[0]
    )
    target = open_embedded_log(tmp_path / "t.db", "events", partitions=1)
    for number in range(10):
        append(source, {"value": b"%d" % number})
        clock[0] += timedelta(minutes=10)
        if number == 1:
            copy(source, target)
    source.retain()
    start = source.partitions()[0].start
    assert start > 2
    report = copy(source, target)
    assert (report.lost, report.copied) == (start - 2, 10 - start)
    source.close()
    target.close()


def test_redriven_records_are_copied_with_the_addresses_of_the_target(tmp_path: Path) -> None:
    clock = [NOON]
    source = open_embedded_log(
        tmp_path / "a.db", "events", retention_age=timedelta(hours=1), clock=lambda: clock[0]
    )
    target = open_embedded_log(tmp_path / "t.db", "events")
    stop = threading.Event()
    assert copy_redrive_lane(source, target, stop=stop).copied == 0
    for number in range(5):
        append(source, {"value": b"%d" % number})
        clock[0] += timedelta(minutes=25)
    source.retain()
    start = source.partitions()[0].start
    assert start > 0
    address = {"key": "headrace.address", "value": b"0:4"}
    append(source.lane("redrive"), {"value": b"corrected", "headers": [address]})
    copy(source, target)
    assert copy_redrive_lane(source, target, stop=stop).copied == 1
    assert copy_redrive_lane(source, target, stop=stop).copied == 0
    [redriven] = contents(target.lane("redrive"), 0)
    assert redriven[2:] == (b"corrected", [("headrace.address", b"0:%d" % (4 - start))])
    assert contents(target, 0)[4 - start][2] == b"4"
    source.close()
    target.close()
