"""The project's own tests: `pytest` runs them in seconds, with a clock of their own, and nothing to start.

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


def event(clock: str, kind: str = "view", **fields: Any) -> dict[str, Any]:
    """Return a record of what a customer did."""
    record = {
        "timestamp": f"2026-03-01T{clock}Z",
        "customer_id": "cust_001",
        "event_type": kind,
        "product_category": "Books",
        "product_id": "prod_novel_001",
        "amount": None,
        "quantity": 1,
        "location": "Berlin",
    }
    return {**record, **fields}


def purchase(clock: str, amount: str, quantity: int = 1, **fields: Any) -> dict[str, Any]:
    return event(clock, "purchase", amount=Decimal(amount), quantity=quantity, **fields)


@pytest.fixture
def shop() -> Iterator[PipelineTest]:
    with PipelineTest(load_project(PROJECT).pipeline, partitions=3, start=at("12:00:00")) as test:
        yield test


def rules(shop: PipelineTest) -> dict[str, tuple[int, int, int]]:
    """Return of each rule how often it was checked, and how often it warned and rejected."""
    return {row["rule"]: (row["checked"], row["warned"], row["rejected"]) for row in shop.table("quality")}


def test_a_category_is_counted_by_minute(shop: PipelineTest) -> None:
    shop.send(
        "events",
        [
            event("12:00:10"),
            purchase("12:00:20", "14.00"),
            purchase("12:00:59", "28.00", 2, customer_id="cust_002"),
            event("12:01:00"),
        ],
        at=at("12:01:05"),
    )
    shop.advance("10 minutes")
    first, second = shop.table("category_metrics")
    assert (first["window_start"], first["product_category"]) == (at("12:00:00"), "Books")
    assert (first["events"], first["purchases"], first["units"], first["customers"]) == (3, 2, 3, 2)
    assert (first["revenue"], first["average_amount"]) == (Decimal("42.00"), Decimal("21.00"))
    assert (second["events"], second["revenue"], second["average_amount"]) == (1, 0, None)


def test_a_customer_has_a_favourite_and_a_last_category_and_city(shop: PipelineTest) -> None:
    shop.send(
        "events",
        [
            purchase("12:00:01", "10.00"),
            event("12:00:02", location="Paris"),
            purchase("12:00:03", "5.50", product_category="Toys", location="Paris"),
            event("12:00:04", "return", amount=Decimal("10.00"), location="Rome"),
        ],
        at=at("12:00:05"),
    )
    shop.advance("1 minute")
    (customer,) = shop.table("customer_activity")
    assert (customer["events"], customer["purchases"], customer["returns"]) == (4, 2, 1)
    assert customer["spent"] == Decimal("15.50")
    assert (customer["favourite_category"], customer["last_category"]) == ("Books", "Books")
    assert (customer["favourite_city"], customer["last_city"]) == ("Paris", "Rome")
    assert (customer["first_seen"], customer["last_seen"]) == (at("12:00:01"), at("12:00:04"))


def test_a_citys_sales_are_those_of_five_minutes(shop: PipelineTest) -> None:
    shop.send("events", [event("12:04:58"), purchase("12:04:59", "0.10")], at=at("12:05:00"))
    shop.send("events", purchase("12:05:00", "0.20", location="Rome"), at=at("12:05:01"))
    shop.advance("20 minutes")
    sales = [
        (row["window_start"], row["city"], row["orders"], row["revenue"]) for row in shop.table("city_sales")
    ]
    assert sales == [
        (at("12:00:00"), "Berlin", 1, Decimal("0.10")),
        (at("12:05:00"), "Rome", 1, Decimal("0.20")),
    ]


@pytest.mark.parametrize(
    ("rule", "fields"),
    [
        ("customer_id_not_empty", {"customer_id": ""}),
        ("customer_id_not_empty", {"customer_id": None}),
        ("product_id_not_empty", {"product_id": ""}),
        ("category_not_empty", {"product_category": ""}),
        ("known_type", {"event_type": "teleport"}),
        ("known_type", {"event_type": None}),
        ("amount_present", {"event_type": "purchase", "amount": None}),
        ("amount_present", {"event_type": "return", "amount": None}),
        ("amount_not_negative", {"amount": Decimal("-0.01")}),
        ("quantity_in_range", {"quantity": 0}),
        ("quantity_in_range", {"quantity": 101}),
        ("quantity_in_range", {"quantity": None}),
    ],
)
def test_a_record_that_breaks_a_rule_is_rejected_and_the_rule_is_counted(
    shop: PipelineTest, rule: str, fields: dict[str, Any]
) -> None:
    shop.send("events", [event("12:00:01"), event("12:00:02", **fields)], at=at("12:00:03"))
    shop.advance("1 minute")
    (letter,) = shop.dead_letters("events")
    assert letter["outcome"] == "rejected"
    assert {reason["rule"] for reason in letter["reasons"]} >= {f"expect:{rule}"}
    counted = rules(shop)
    assert counted[rule] == (2, 0, 1)
    assert counted["known_category"][0] == 2


def test_an_unknown_category_is_a_warning_and_counts(shop: PipelineTest) -> None:
    shop.send("events", event("12:00:01", product_category="Garden"), at=at("12:00:02"))
    shop.advance("1 minute")
    assert rules(shop)["known_category"] == (1, 1, 0)
    assert [row["product_category"] for row in shop.table("category_metrics")] == ["Garden"]


def test_a_record_of_the_future_is_set_aside_and_counted_as_a_rule(shop: PipelineTest) -> None:
    shop.send("events", [event("12:00:01"), event("12:02:00")], at=at("12:00:02"))
    shop.advance("1 minute")
    (letter,) = shop.dead_letters("events")
    assert letter["outcome"] == "future"
    assert rules(shop)["time_not_in_the_future"] == (2, 0, 1)


def test_the_same_deed_twice_counts_once(shop: PipelineTest) -> None:
    shop.send("events", [purchase("12:00:01", "14.00"), purchase("12:00:01", "14.00")], at=at("12:00:02"))
    shop.send("events", event("12:00:01"), at=at("12:00:03"))  # the same moment, but another deed
    shop.advance("1 minute")
    (customer,) = shop.table("customer_activity")
    assert (customer["events"], customer["purchases"]) == (2, 1)


def test_a_record_that_comes_too_late_counts_in_no_table(shop: PipelineTest) -> None:
    shop.send("events", [event("12:00:00"), event("12:00:01")], at=at("12:05:01"))
    shop.advance("10 minutes")
    assert [row["events"] for row in shop.table("customer_activity")] == [1]
    assert [row["timestamp"] for row in shop.query("SELECT timestamp FROM late_events")] == [at("12:00:00")]
