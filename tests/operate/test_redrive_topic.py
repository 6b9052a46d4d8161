"""Corrections that somebody put into a dead-letter topic."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from headrace.log import APPEND_SCHEMA, EmbeddedLog, open_embedded_log
from headrace.operate.redrive import Address
from headrace.operate.redrive_topic import READER, read_topic, redriven_of
from headrace.replicate.dead_letters import letter_headers

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


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

    def dead_letters(self, *, limit: int = 100, addresses: Any = None, **_: Any) -> pa.Table:
        names = ("stream", "lane", "partition", "offset")
        return pa.Table.from_pylist(
            [each for each in self.letters if tuple(each[name] for name in names) in addresses][:limit]
        )


@pytest.fixture
def topic(tmp_path: Path) -> Iterator[EmbeddedLog]:
    opened = open_embedded_log(tmp_path / "topic.db", "dead", partitions=2)
    yield opened
    opened.close()


def put(topic: EmbeddedLog, value: bytes | None, headers: Any, partition: int = 0) -> None:
    row = {**dict.fromkeys(APPEND_SCHEMA.names), "partition": partition, "value": value, "headers": headers}
    topic.append(pa.Table.from_pylist([row], schema=APPEND_SCHEMA))


def connect_headers(topic: str, partition: bytes, offset: bytes) -> list[dict[str, Any]]:
    names = {"topic": topic.encode(), "partition": partition, "offset": offset}
    return [{"key": f"__connect.errors.{name}", "value": value} for name, value in names.items()]


def test_the_latest_correction_of_each_address_goes_back(topic: EmbeddedLog) -> None:
    letters = [letter(offset, b"wrong-%d" % offset) for offset in range(5)]
    client: Any = Client(letters)
    for each in letters:
        put(topic, each["value"], letter_headers(each, topic="shop", pipeline="p", store_id="s"))
    put(topic, b"first try", [{"key": "headrace.dead-letter", "value": b"events:0:1"}])
    put(topic, b"right", [{"key": "headrace.dead-letter", "value": b"events:0:1"}])
    put(topic, b"by another tool", connect_headers("shop", b"0", b"3"), partition=1)
    put(topic, b"of another store", [{"key": "headrace.dead-letter", "value": b"events:0:99"}])
    for headers in (
        None,
        [{"key": "headrace.dead-letter", "value": b"nonsense"}],
        connect_headers("unknown", b"0", b"3"),
        connect_headers("shop", b"\xff", b"3"),
    ):
        put(topic, b"nameless", headers)
    found = read_topic(topic, {"shop": "events"})
    assert (found.records, found.nameless) == (13, 4)
    chosen = redriven_of(client, found)
    assert {str(each.address): each.value for each in chosen.records} == {
        "events:0:1": b"right",
        "events:0:3": b"by another tool",
    }
    assert (chosen.unchanged, chosen.unknown) == (3, 1)
    assert chosen.records[0].headers == (("trace", b"1"),)
    assert (chosen.records[0].key, chosen.records[0].record_time) == (b"k", NOON)
    assert len(redriven_of(client, found, unchanged=True).records) == 5


def test_a_topic_is_taken_from_where_it_was_left(topic: EmbeddedLog) -> None:
    put(topic, b"a", [{"key": "headrace.dead-letter", "value": b"events:0:1"}])
    first = read_topic(topic, {})
    topic.publish(READER, first.ends)
    assert read_topic(topic, {}).records == 0
    put(topic, None, [{"key": "headrace.dead-letter", "value": b"events:0:2"}])
    assert read_topic(topic, {}).corrected == {Address("events", "main", 0, 2): None}
    assert read_topic(topic, {}, from_beginning=True).records == 2


def test_a_letter_can_be_corrected_to_a_tombstone_and_back(topic: EmbeddedLog) -> None:
    client: Any = Client([letter(1, b"wrong"), letter(2, None)])
    put(topic, None, [{"key": "headrace.dead-letter", "value": b"events:0:1"}])
    put(topic, b"right", [{"key": "headrace.dead-letter", "value": b"events:0:2"}])
    chosen = redriven_of(client, read_topic(topic, {}))
    assert [each.value for each in chosen.records] == [None, b"right"]
