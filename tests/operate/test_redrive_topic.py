"""Corrections that somebody put into a dead-letter topic."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest

from headrace.log import APPEND_SCHEMA, EmbeddedLog, open_embedded_log
from headrace.log.between import read_between
from headrace.operate import redrive_parts, redrive_topic
from headrace.operate.redrive import Address, Redriven
from headrace.operate.redrive_parts import PLACE
from headrace.operate.redrive_topic import READER, Chosen, TopicLetters
from headrace.replicate.dead_letters import letter_headers

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
SIZED = pa.schema(
    [("stream", pa.string()), ("lane", pa.string()), ("partition", pa.int32()), ("offset", pa.int64()),
     ("bytes", pa.int64())]
)  # fmt: skip


def letter(offset: int, value: bytes | None) -> dict[str, Any]:
    return {
        "stream": "events", "lane": "main", "partition": 0, "offset": offset, "record_time": NOON,
        "outcome": "rejected", "reasons": [{"rule": "expect:known", "detail": "is not true"}],
        "event_time": None, "key": b"k", "value": value, "headers": [{"key": "trace", "value": b"1"}],
        "epoch": 1,
    }  # fmt: skip


class Client:
    running = False

    def __init__(self, letters: list[dict[str, Any]]) -> None:
        self.letters = letters
        self.letters_held = 0

    def dead_letters(
        self, *, limit: int = 100, addresses: Any = None, columns: Any = (), **_: Any
    ) -> pa.Table:
        found = [each for each in self.letters if tuple(each[name] for name in PLACE) in addresses][:limit]
        if columns:
            sized = [{**each, "bytes": len(each["value"] or b"")} for each in found]
            return pa.Table.from_pylist(sized, schema=SIZED).select(columns)
        self.letters_held = max(self.letters_held, len(found))
        return pa.Table.from_pylist(found)


@pytest.fixture
def topic(tmp_path: Path) -> Iterator[EmbeddedLog]:
    opened = open_embedded_log(tmp_path / "topic.db", "dead", partitions=2)
    yield opened
    opened.close()


def put(
    topic: EmbeddedLog, value: bytes | None, headers: Any, partition: int = 0, at: datetime | None = None
) -> None:
    row = {"partition": partition, "record_time": at, "key": None, "value": value, "headers": headers}
    topic.append(pa.Table.from_pylist([row], schema=APPEND_SCHEMA))


def connect_headers(topic: str, partition: bytes, offset: bytes) -> list[dict[str, Any]]:
    names = {"topic": topic.encode(), "partition": partition, "offset": offset}
    return [{"key": f"__connect.errors.{name}", "value": value} for name, value in names.items()]


def corrects(offset: int) -> list[dict[str, Any]]:
    return [{"key": "headrace.dead-letter", "value": b"events:0:%d" % offset}]


def chosen_of(
    client: Any, letters: TopicLetters, *, unchanged: bool = False
) -> tuple[Chosen, list[Redriven]]:
    """What would be given back: how many, and all of it."""
    chosen = letters.look(client, 1_000, unchanged=unchanged)
    assert len(chosen.first) == chosen.records
    return chosen, chosen.first


def test_the_latest_correction_of_each_address_goes_back(topic: EmbeddedLog) -> None:
    letters = [letter(offset, b"wrong-%d" % offset) for offset in range(5)]
    client: Any = Client(letters)
    for each in letters:
        put(topic, each["value"], letter_headers(each, topic="shop", pipeline="p", store_id="s"))
    put(topic, b"first try", corrects(1))
    put(topic, b"right", corrects(1))
    put(topic, b"by another tool", connect_headers("shop", b"0", b"3"), partition=1)
    put(topic, b"of another store", corrects(99))
    for headers in (
        None,
        [{"key": "headrace.dead-letter", "value": b"nonsense"}],
        connect_headers("unknown", b"0", b"3"),
        connect_headers("shop", b"\xff", b"3"),
        connect_headers("shop", b"0", b"9" * 30),
    ):
        put(topic, b"nameless", headers)
    found = TopicLetters(topic, {"shop": "events"})
    assert (found.records, found.nameless, found.addresses) == (14, 5, 6)
    chosen, records = chosen_of(client, found)
    assert {str(each.address): each.value for each in records} == {
        "events:0:1": b"right",
        "events:0:3": b"by another tool",
    }
    assert (chosen.unchanged, chosen.unknown) == (3, 1)
    assert records[0].headers == (("trace", b"1"),)
    assert (records[0].key, records[0].record_time) == (b"k", NOON)
    assert chosen_of(client, TopicLetters(topic, {"shop": "events"}), unchanged=True)[0].records == 5


def test_a_topic_is_taken_from_where_it_was_left(topic: EmbeddedLog) -> None:
    client: Any = Client([letter(1, b"wrong"), letter(2, b"wrong")])
    put(topic, b"a", corrects(1))
    topic.publish(READER, TopicLetters(topic, {}).ends)
    assert TopicLetters(topic, {}).records == 0
    put(topic, None, corrects(2))
    (record,) = chosen_of(client, TopicLetters(topic, {}))[1]
    assert (record.address, record.value) == (Address("events", "main", 0, 2), None)
    assert TopicLetters(topic, {}, from_beginning=True).records == 2


def test_a_letter_can_be_corrected_to_a_tombstone_and_back(topic: EmbeddedLog) -> None:
    client: Any = Client([letter(1, b"wrong"), letter(2, None)])
    put(topic, None, corrects(1))
    put(topic, b"right", corrects(2))
    assert [each.value for each in chosen_of(client, TopicLetters(topic, {}))[1]] == [None, b"right"]


def test_of_corrections_in_several_partitions_the_one_that_came_last_goes_back(topic: EmbeddedLog) -> None:
    client: Any = Client([letter(1, b"wrong"), letter(2, b"wrong")])
    put(topic, b"old", corrects(1), partition=1, at=NOON)
    put(topic, b"new", corrects(1), partition=0, at=NOON + timedelta(seconds=1))
    put(topic, b"new", corrects(2), partition=1, at=NOON + timedelta(seconds=1))
    put(topic, b"old", corrects(2), partition=0, at=NOON)
    # Of one partition the last one, also where who wrote it had a clock that was behind.
    put(topic, b"newest", corrects(2), partition=1, at=NOON)
    put(topic, b"between", corrects(2), partition=0, at=NOON - timedelta(seconds=1))
    records = chosen_of(client, TopicLetters(topic, {}))[1]
    assert {each.address.offset: each.value for each in records} == {1: b"new", 2: b"newest"}


def test_of_however_many_corrections_few_are_held_at_once(
    topic: EmbeddedLog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    letters = 40
    monkeypatch.setattr(redrive_parts, "LETTERS_AT_ONCE", 3)
    monkeypatch.setattr(redrive_topic, "ROWS_AT_ONCE", 7)
    monkeypatch.setattr(redrive_topic, "PLACES_AT_ONCE", 5)
    client: Any = Client([letter(offset, b"wrong") for offset in range(letters)])
    for n in range(3 * letters):  # each three times: the last counts
        put(topic, b"right-%d" % n, corrects(n % letters), partition=n % 2)
    streams: list[str] = []

    def open_log(stream: str) -> Any:
        streams.append(stream)
        assert held() <= 3
        return SimpleNamespace(lane=back.lane, close=lambda: None)

    def held() -> int:
        return sum(isinstance(each, Redriven) for each in gc.get_objects())

    found = TopicLetters(topic, {})
    chosen = found.look(client, 1)
    assert (chosen.records, len(chosen.first), chosen.unknown) == (letters, 1, 0)
    del chosen
    gc.collect()  # those that another test left; once, for it takes half a second
    with closing(open_embedded_log(tmp_path / "log.db", "events", partitions=1)) as back:
        assert found.give_back(client, open_log) == letters
        lane = back.lane("redrive")
        (given,) = read_between(lane, {0: 0}, {each.partition: each.end for each in lane.partitions()})
    assert sorted(given.column("value").to_pylist()) == sorted(
        b"right-%d" % (2 * letters + n) for n in range(letters)
    )
    assert len(streams) >= letters / 3
    assert client.letters_held == 3, "letters were asked for in parts"


class _Killed(BaseException):
    pass


def given_back(
    topic: EmbeddedLog, client: Any, lane: EmbeddedLog, *, killed_after: int = 10**9
) -> list[bytes]:
    """What a redrive appends that dies instead of appending once more than `killed_after` times."""
    begin = {each.partition: each.end for each in lane.partitions()}
    asked = 0

    def open_log(_: str) -> Any:
        nonlocal asked
        asked += 1
        if asked > killed_after:
            raise _Killed
        return SimpleNamespace(lane=lambda _: lane, close=lambda: None)

    found = TopicLetters(topic, {})
    found.look(client, 1)
    with contextlib.suppress(_Killed):
        found.give_back(client, open_log)
    values: list[bytes] = []
    for each in read_between(lane, begin, {each.partition: each.end for each in lane.partitions()}):
        values += each.column("value").to_pylist()
    return values


@pytest.fixture
def lane(tmp_path: Path) -> Iterator[EmbeddedLog]:
    with closing(open_embedded_log(tmp_path / "log.db", "events", partitions=1)) as log:
        yield log.lane("redrive")


def test_who_was_killed_and_begins_again_gives_back_what_was_left(
    topic: EmbeddedLog, lane: EmbeddedLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redrive_topic, "ROWS_AT_ONCE", 3)
    client: Any = Client([letter(offset, b"wrong") for offset in range(9)])
    for offset in range(9):
        put(topic, b"right-%d" % offset, corrects(offset))
    before = given_back(topic, client, lane, killed_after=2)
    after = given_back(topic, client, lane)
    assert 0 < len(before) < 9
    assert sorted(before + after) == [b"right-%d" % offset for offset in range(9)]
    assert TopicLetters(topic, {}).records == 0
    again = TopicLetters(topic, {}, from_beginning=True)
    again.look(client, 1)

    def none_left(_: str) -> Any:
        raise _Killed

    with pytest.raises(_Killed):
        again.give_back(client, none_left)
    assert TopicLetters(topic, {}).records == 0, "who begins at the beginning moves no place back"


def test_an_older_correction_does_not_follow_when_the_later_one_was_given_back(
    topic: EmbeddedLog, lane: EmbeddedLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redrive_topic, "ROWS_AT_ONCE", 1)
    client: Any = Client([letter(offset, b"wrong") for offset in range(2)])
    # Read is by time, and no record before one that lies before it: the older correction comes last.
    put(topic, b"other", corrects(1), partition=0, at=NOON + timedelta(seconds=5))
    put(topic, b"old", corrects(0), partition=0, at=NOON)
    put(topic, b"new", corrects(0), partition=1, at=NOON + timedelta(seconds=1))
    before = given_back(topic, client, lane, killed_after=1)
    assert before == [b"new"]
    assert b"old" not in given_back(topic, client, lane)


def test_of_corrections_of_two_letters_of_a_record_the_latest_goes_back(
    topic: EmbeddedLog, lane: EmbeddedLog
) -> None:
    again = [{"key": "headrace.address", "value": b"0:1"}]
    client: Any = Client(
        [
            letter(1, b"wrong"),
            {**letter(0, b"still wrong"), "lane": "redrive", "headers": again},
            {**letter(7, b"by hand"), "lane": "redrive", "headers": [{**again[0], "value": b"x"}]},
        ]
    )
    put(topic, b"older", corrects(1))
    put(topic, b"other", [{"key": "headrace.dead-letter", "value": b"events@redrive:0:7"}])
    put(topic, b"latest", [{"key": "headrace.dead-letter", "value": b"events@redrive:0:0"}])
    chosen, records = chosen_of(client, TopicLetters(topic, {}))
    assert sorted(each.value or b"" for each in records) == [b"latest", b"other"]
    assert chosen.unchanged == chosen.unknown == 0
    assert sorted(given_back(topic, client, lane)) == [b"latest", b"other"]
