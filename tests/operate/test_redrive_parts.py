"""Groups of dead letters go back: the last try of each record, few in memory at once, or none at all."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest

from headrace.declare import Pipeline
from headrace.errors import RefusedError
from headrace.operate import redrive_parts
from headrace.operate.redrive import Address, Change, Redriven, replace_bytes, set_fields
from headrace.operate.redrive_parts import GoingBack
from headrace.testing.pipeline_test import PipelineTest

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.fixture
def shop() -> Iterator[PipelineTest]:
    pipeline = Pipeline("shop")
    pipeline.stream(
        "events", schema="seen TIMESTAMP NOT NULL, n INT", event_time="seen", expect={"small": "n < 10"}
    )
    pipeline.table("counted", "SELECT count(*) AS n FROM events")
    with PipelineTest(pipeline, start=NOON) as test:
        yield test


def send(test: PipelineTest, *numbers: int) -> None:
    test.send("events", [{"seen": NOON.isoformat(), "n": n} for n in numbers])
    test.run()


def chosen(test: PipelineTest, **group: Any) -> list[Redriven]:
    records, found = GoingBack(test.store, **group).look(1_000)
    assert len(found) == records
    return found


def give_back(test: PipelineTest, change: Change | None = None, **group: Any) -> list[str]:
    """Give back what is chosen, run, and return the addresses that the records stand for."""
    records = chosen(test, **group)
    kept_open: Any = SimpleNamespace(lane=test.log("events").lane, close=lambda: None)
    assert GoingBack(test.store, change, **group).give_back(lambda _: kept_open) == len(records)
    test.run()
    return sorted(record.stands_for for record in records)


def test_what_is_given_back_every_night_does_not_double(shop: PipelineTest) -> None:
    send(shop, 1, 11, 12)
    for _ in range(3):
        assert give_back(shop, stream="events") == ["0:1", "0:2"]
    assert len(shop.dead_letters("events")) == 8  # those of the log, and two of every night
    assert give_back(shop, set_fields(["n=20"]), rule="expect:small", outcome="rejected") == ["0:1", "0:2"]
    assert [json.loads(each.value or b"")["n"] for each in chosen(shop)] == [20, 20]
    assert give_back(shop, set_fields(["n=2"]), addresses=[Address.parse("events:0:1")]) == ["0:1"]
    assert give_back(shop, outcome="rejected") == ["0:2"]
    assert shop.table("counted") == [{"n": 2}]
    assert give_back(shop, set_fields(["n=3"])) == ["0:2"]
    assert chosen(shop) == []
    assert shop.outcomes("events", lane="redrive") == {"accepted": 2, "rejected": 9}


def test_a_rule_is_that_of_the_last_try(shop: PipelineTest) -> None:
    send(shop, 11)
    give_back(shop, replace_bytes(b"nothing"), rule="expect:small")
    assert chosen(shop, rule="expect:small") == []
    assert [each.outcome for each in chosen(shop, stream="events")] == ["malformed"]


@pytest.mark.parametrize("letters", [6, 7])
def test_all_of_a_group_go_back_though_neither_they_nor_their_places_are_asked_for_at_once(
    shop: PipelineTest, monkeypatch: pytest.MonkeyPatch, letters: int
) -> None:
    monkeypatch.setattr(redrive_parts, "LETTERS_AT_ONCE", 2)
    monkeypatch.setattr(redrive_parts, "PLACES_AT_ONCE", 3)
    held = {"letters": 0, "places": 0}
    asked = shop.store.dead_letters

    def counted(**wanted: Any) -> Any:
        found = asked(**wanted)
        what = "letters" if "value" in found.column_names else "places"
        held[what] = max(held[what], found.num_rows)
        return found

    send(shop, *range(11, 11 + letters))
    monkeypatch.setattr(shop.store, "dead_letters", counted)
    records, first = GoingBack(shop.store, stream="events").look(1)
    assert (records, [each.stands_for for each in first]) == (letters, ["0:0"])
    going = GoingBack(shop.store, set_fields(["n=5"]), stream="events")
    kept_open: Any = SimpleNamespace(lane=shop.log("events").lane, close=lambda: None)
    assert going.give_back(lambda _: kept_open) == letters
    shop.run()
    assert shop.table("counted") == [{"n": letters}]
    assert held == {"letters": 2, "places": 3}


def test_none_goes_back_where_one_cannot_be_changed(
    shop: PipelineTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redrive_parts, "LETTERS_AT_ONCE", 1)
    send(shop, 11)
    shop.send_bytes("events", b"{broken")
    shop.run()

    def opened(stream: str) -> Any:
        raise AssertionError("something was given back")

    going = GoingBack(shop.store, set_fields(["n=1"]), stream="events")
    with pytest.raises(RefusedError, match="events:0:1"):
        going.give_back(opened)
