"""The shop's own tests: `pytest` runs them in seconds, with a clock of their own, and nothing to start.

`send` appends records to the log as if they arrived at the time `at`, `advance` lets time pass and runs the
engine, `table` reads the answer. Change the pipeline, then change or add the test that says what you meant.
"""
# ruff: noqa: S101 - a test's name says what it shows, and it asserts

from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from headrace.operate import load_project
from headrace.testing import PipelineTest

PROJECT = Path(__file__).parent.parent


def at(clock: str) -> datetime:
    return datetime.fromisoformat(f"2026-03-01T{clock}").replace(tzinfo=UTC)


def event(clock: str, kind: str = "page_view", **fields: Any) -> dict[str, Any]:
    """Return a record of one event; its id is its type and time unless it is given."""
    record = {
        "event_id": f"{kind}-{clock}",
        "event_type": kind,
        "user_id": "user_0001",
        "timestamp": f"2026-03-01T{clock}Z",
        "device": "mobile",
        "location": "DE",
        "session_id": "s1",
    }
    return {**record, **fields}


def purchase(
    clock: str, *items: tuple[str, int, str], total: str | None = None, **fields: Any
) -> dict[str, Any]:
    """Return a purchase of items (product, quantity, price); its total is theirs unless it is given."""
    basket = [{"product_id": p, "quantity": n, "price": Decimal(price)} for p, n, price in items]
    total_amount = Decimal(total) if total else sum(Decimal(price) * n for _, n, price in items)
    return event(clock, "purchase", order_id=f"o-{clock}", items=basket, total_amount=total_amount, **fields)


@pytest.fixture
def shop() -> Iterator[PipelineTest]:
    with PipelineTest(load_project(PROJECT).pipeline, partitions=3, start=at("12:00:00")) as test:
        yield test


def test_events_are_counted_by_minute_and_type(shop: PipelineTest) -> None:
    shop.send(
        "events",
        [event("12:00:10"), event("12:00:59", user_id="user_0002"), event("12:01:00")],
        at=at("12:01:05"),
    )
    shop.advance("10 minutes")
    assert [(row["window_start"], row["events"], row["users"]) for row in shop.table("event_counts")] == [
        (at("12:00:00"), 2, 2),
        (at("12:01:00"), 1, 1),
    ]


def test_an_event_is_in_five_sliding_windows(shop: PipelineTest) -> None:
    shop.send("events", event("12:06:30", "item_click"), at=at("12:06:31"))
    shop.advance("20 minutes")
    rows = shop.table("user_activity")
    assert [row["window_start"] for row in rows] == [at(f"12:0{minute}:00") for minute in (2, 3, 4, 5, 6)]
    assert {(row["events"], row["clicks"], row["last_event"]) for row in rows} == {(1, 1, "item_click")}


def test_revenue_is_exact_and_belongs_to_its_ten_minutes(shop: PipelineTest) -> None:
    shop.send("events", purchase("12:09:59", ("p1", 2, "10.10")), at=at("12:10:01"))
    shop.send("events", purchase("12:10:00", ("p1", 1, "0.10"), user_id="user_0002"), at=at("12:10:02"))
    shop.advance("30 minutes")
    first, second = shop.table("purchase_analytics")
    assert (first["window_start"], first["revenue"]) == (at("12:00:00"), Decimal("20.20"))
    assert (second["window_start"], second["revenue"]) == (at("12:10:00"), Decimal("0.10"))
    assert (first["orders"], first["buyers"], first["largest_order"]) == (1, 1, Decimal("20.20"))


def test_a_basket_is_sold_item_by_item(shop: PipelineTest) -> None:
    shop.send("events", purchase("12:00:00", ("p1", 2, "10.00"), ("p2", 1, "5.00")), at=at("12:00:01"))
    shop.advance("2 hours")
    sold = {row["product_id"]: (row["bought"], row["revenue"]) for row in shop.table("product_sales")}
    assert sold == {"p1": (2, Decimal("20.00")), "p2": (1, Decimal("5.00"))}


def test_half_an_hour_of_silence_ends_a_session(shop: PipelineTest) -> None:
    shop.send("events", event("12:00:00"), at=at("12:00:01"))
    shop.send("events", event("12:29:00", "item_click"), at=at("12:29:01"))
    shop.send("events", purchase("13:00:00", ("p1", 1, "5.00")), at=at("13:00:01"))
    shop.advance("2 hours")
    first, second = shop.table("sessions")
    assert (first["session_start"], first["length_s"], first["converted"]) == (at("12:00:00"), 29 * 60, False)
    assert (second["session_start"], second["events"], second["converted"]) == (at("13:00:00"), 1, True)


def test_an_event_that_comes_after_another_can_join_two_sessions(shop: PipelineTest) -> None:
    shop.send("events", [event("12:00:00"), event("12:31:00")], at=at("12:31:30"))
    shop.send("events", event("12:29:00"), at=at("12:33:00"))
    shop.advance("2 hours")
    assert [row["events"] for row in shop.table("sessions")] == [2]


def test_a_record_that_breaks_a_rule_is_set_aside_with_the_rules_name(shop: PipelineTest) -> None:
    shop.send("events", event("12:00:00", "teleport", device="fridge"), at=at("12:00:01"))
    shop.advance("10 minutes")
    (letter,) = shop.dead_letters("events")
    assert letter["outcome"] == "rejected"
    assert [reason["rule"] for reason in letter["reasons"]] == ["expect:known_type", "expect:known_device"]
    assert shop.table("events_clean") == []


def test_a_total_that_is_not_the_items_total_is_a_warning(shop: PipelineTest) -> None:
    shop.send("events", purchase("12:00:00", ("p1", 2, "10.00"), total="19.00"), at=at("12:00:01"))
    shop.advance("10 minutes")
    assert len(shop.table("events_clean")) == 1
    warned = shop.query("SELECT sum(warned)::INT AS n FROM rule_checks WHERE rule LIKE '%purchase_total'")
    assert warned == [{"n": 1}]


def test_what_comes_more_than_five_minutes_late_counts_in_no_window(shop: PipelineTest) -> None:
    shop.send("events", event("12:00:00", event_id="in time"), at=at("12:05:00"))
    shop.send("events", event("12:00:00", event_id="late"), at=at("12:05:01"))
    shop.advance("10 minutes")
    assert [row["events"] for row in shop.table("event_counts")] == [1]
    assert [row["event_id"] for row in shop.late("events")] == ["late"]


def test_a_copy_is_counted_once(shop: PipelineTest) -> None:
    shop.send("events", [event("12:00:00")] * 3, at=at("12:00:01"))
    shop.advance("10 minutes")
    assert [row["events"] for row in shop.table("event_counts")] == [1]


def test_the_funnel_adds_up_the_hour(shop: PipelineTest) -> None:
    steps = [("user_login", 1), ("page_view", 8), ("item_click", 4), ("cart_add", 2)]
    records = [event(f"12:00:{n:02}", kind) for kind, count in steps for n in range(count)]
    shop.send("events", [*records, purchase("12:01:00", ("p1", 1, "5.00"))], at=at("12:01:01"))
    shop.advance("2 hours")
    (hour,) = shop.table("funnel")
    assert (hour["logins"], hour["views"], hour["clicks"], hour["carts"], hour["purchases"]) == (
        1,
        8,
        4,
        2,
        1,
    )
    assert (hour["click_rate"], hour["purchase_rate"]) == (0.5, 0.5)


def test_a_review_is_not_known_yet(shop: PipelineTest) -> None:
    # The lesson in README.md lets reviews in; this test then becomes the one that it shows.
    shop.send("events", event("12:00:00", "product_review", product_id="p1", rating=5), at=at("12:00:01"))
    shop.advance("10 minutes")
    assert [letter["outcome"] for letter in shop.dead_letters("events")] == ["rejected"]


def test_neither_a_crash_nor_the_size_of_a_batch_changes_an_answer(shop: PipelineTest) -> None:
    records = [event(f"12:{n:02}:00", user_id=f"user_{n % 3}") for n in range(10)]
    records += [purchase("12:05:30", ("p1", 1, "5.00")), event("12:04:00", "teleport")]
    shop.send("events", records, at=at("12:09:00"))
    shop.advance("2 hours")
    calm = {table.name: shop.table(table.name) for table in shop.pipeline.tables}
    with PipelineTest(shop.pipeline, partitions=3, start=at("12:00:00"), cuts=7) as rough:
        for step in ("duplicates", "table", "commit"):
            rough.crash_at(step)
        rough.send("events", records, at=at("12:09:00"))
        rough.advance("2 hours")
        assert len(rough.crashes_seen) == 3
        for name, rows in calm.items():
            assert rough.table(name) == rows, name
