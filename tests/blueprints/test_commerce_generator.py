from __future__ import annotations

import json
from collections import Counter
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import cache
from typing import Any

import pyarrow as pa
import pytest

from headrace.blueprints.commerce.generator import CommerceGenerator
from headrace.errors import ProfileError

START = datetime(2026, 3, 1, 12, tzinfo=UTC)
CLEAN = {
    "late_share": 0.0,
    "duplicate_share": 0.0,
    "conflict_share": 0.0,
    "malformed_share": 0.0,
    "future_share": 0.0,
}
FIELDS = {
    "user_login": {"method", "success"},
    "page_view": {"page"},
    "item_click": {"product_id", "category", "price"},
    "cart_add": {"product_id", "category", "price", "quantity"},
    "purchase": {"order_id", "items", "total_amount", "payment_method"},
    "search": {"query", "results"},
    "product_review": {"product_id", "rating", "text"},
}
COMMON = {"event_id", "event_type", "user_id", "timestamp", "device", "location", "session_id"}
COUNT = 20_000


def generate(count: int = COUNT, rate: float = 14.0, **settings: Any) -> pa.Table:
    return CommerceGenerator(**settings).batch(START, count, rate=rate)


def parse(table: pa.Table) -> list[dict[str, Any]]:
    return [json.loads(value, parse_float=Decimal) for value in table["value"].to_pylist()]


@cache
def clean_events() -> list[dict[str, Any]]:
    return parse(generate(seed=7, review_share=0.02, **CLEAN))


def event_time(record: dict[str, Any]) -> datetime:
    return datetime.fromisoformat(record["timestamp"]).replace(tzinfo=UTC)


def test_the_same_seed_gives_the_same_bytes() -> None:
    assert generate(seed=3).equals(generate(seed=3))


def test_another_seed_gives_other_bytes() -> None:
    assert not generate(seed=3)["value"].equals(generate(seed=4)["value"])


def test_how_events_are_cut_into_batches_does_not_change_them() -> None:
    whole = generate(20_000, seed=3, rate=10.0)
    generator, at, pieces = CommerceGenerator(seed=3), 0, []
    for size in (1, 1, 700, 16_000, 3_298):
        pieces.append(generator.batch(START + timedelta(seconds=at / 10), size, rate=10.0))
        at += size
    assert pa.concat_tables(pieces).combine_chunks().equals(whole.combine_chunks())


def test_every_type_has_its_fields() -> None:
    seen = set()
    for record in clean_events():
        kind = record["event_type"]
        seen.add(kind)
        optional = {"product_id"} if record.get("page") == "/product" else set()
        assert set(record) == COMMON | FIELDS[kind] | optional
    assert seen == set(FIELDS)


def test_the_total_of_a_purchase_is_exactly_the_sum_of_its_items() -> None:
    purchases = [record for record in clean_events() if record["event_type"] == "purchase"]
    assert len(purchases) > 200
    for purchase in purchases:
        total = sum(item["price"] * item["quantity"] for item in purchase["items"])
        assert purchase["total_amount"] == total
        assert purchase["total_amount"].as_tuple().exponent == -2
    assert {len(purchase["items"]) for purchase in purchases} >= {1, 2}


def test_the_key_is_the_user_id() -> None:
    table = generate(1000, seed=1, **CLEAN)
    assert table["key"].to_pylist() == [record["user_id"].encode() for record in parse(table)]


def test_a_record_has_about_215_bytes() -> None:
    values = generate(seed=1)["value"].to_pylist()
    assert 200 <= sum(map(len, values)) / len(values) <= 235


def test_the_funnel_narrows_from_step_to_step() -> None:
    kinds = Counter(record["event_type"] for record in clean_events())
    assert kinds["page_view"] > kinds["item_click"] > kinds["cart_add"] > kinds["purchase"] > 0
    assert 0.02 < kinds["purchase"] / kinds["item_click"] < 0.15


def test_a_session_buys_only_what_was_put_into_its_cart() -> None:
    carts: dict[str, set[tuple[str, int]]] = {}
    for record in parse(generate(seed=7, disorder=timedelta(0), **CLEAN)):
        if record["event_type"] == "cart_add":
            carts.setdefault(record["session_id"], set()).add((record["product_id"], record["quantity"]))
        elif record["event_type"] == "purchase":
            bought = {(item["product_id"], item["quantity"]) for item in record["items"]}
            assert bought <= carts[record["session_id"]]


def test_a_session_belongs_to_one_user_and_one_device() -> None:
    sessions: dict[str, set[tuple[str, str, str]]] = {}
    for record in clean_events():
        owner = (record["user_id"], record["device"], record["location"])
        sessions.setdefault(record["session_id"], set()).add(owner)
    assert all(len(owners) == 1 for owners in sessions.values())
    assert 4 < COUNT / len(sessions) < 8


def test_some_users_and_products_are_much_more_popular_than_others() -> None:
    users = Counter(record["user_id"] for record in clean_events())
    products = Counter(r["product_id"] for r in clean_events() if r["event_type"] == "item_click")
    assert users.most_common(1)[0][1] > 10 * COUNT / 10_000
    assert products.most_common(1)[0][1] > 20 * sum(products.values()) / 500


def test_without_skew_all_users_are_equally_popular() -> None:
    records = parse(generate(3 * COUNT, seed=1, users=100, user_skew=0.0, **CLEAN))
    users = Counter(record["user_id"] for record in records)
    assert len(users) == 100
    assert max(users.values()) < 2 * min(users.values())


def test_arrivals_are_in_order_and_event_times_lie_within_the_disorder() -> None:
    table = generate(seed=1, disorder=timedelta(seconds=30), **CLEAN)
    arrivals = table["record_time"].to_pylist()
    assert arrivals == sorted(arrivals)
    assert arrivals[0] == START
    times = [event_time(record) for record in parse(table)]
    delays = [arrival - time for arrival, time in zip(arrivals, times, strict=True)]
    assert timedelta(0) <= min(delays)
    assert timedelta(seconds=20) < max(delays) <= timedelta(seconds=30, milliseconds=1)
    assert times != sorted(times)


@pytest.mark.parametrize(("share", "fate"), [("late_share", "late"), ("future_share", "future")])
def test_late_and_future_records_have_their_share(share: str, fate: str) -> None:
    table = generate(seed=1, **CLEAN | {share: 0.05})
    count = 0
    for record, arrival in zip(parse(table), table["record_time"].to_pylist(), strict=True):
        delay = arrival - event_time(record)
        count += delay > timedelta(minutes=5) if fate == "late" else delay < -timedelta(minutes=1)
    assert count / COUNT == pytest.approx(0.05, abs=0.005)


def test_copies_are_true_copies_that_follow_their_original() -> None:
    table = generate(seed=1, **CLEAN | {"duplicate_share": 0.05})
    first: dict[bytes, int] = {}
    copies = 0
    for at, (key, value) in enumerate(zip(table["key"].to_pylist(), table["value"].to_pylist(), strict=True)):
        assert key in value
        copies += value in first
        first.setdefault(value, at)
    ids = {record["event_id"] for record in parse(table)}
    assert len(ids) == len(first) == COUNT - copies
    assert copies / COUNT == pytest.approx(0.05, abs=0.005)


def test_conflicting_copies_have_the_same_id_and_time_but_other_content() -> None:
    table = generate(seed=1, **CLEAN | {"conflict_share": 0.02})
    seen: dict[str, str] = {}
    conflicts = 0
    for record in parse(table):
        if "resent" in record:
            conflicts += 1
            assert seen[record["event_id"]] == record["timestamp"]
        seen[record["event_id"]] = record["timestamp"]
    assert conflicts / COUNT == pytest.approx(0.02, abs=0.003)


def is_usable(value: bytes) -> bool:
    try:
        record = json.loads(value.decode("utf-8"), parse_constant=lambda text: 1 / 0)
        datetime.fromisoformat(record["timestamp"])
        return isinstance(record["user_id"], str) and "event_id" in record
    except (ValueError, KeyError, ZeroDivisionError):
        return False


def test_malformed_records_have_their_share_and_several_kinds() -> None:
    values = generate(seed=1, **CLEAN | {"malformed_share": 0.05})["value"].to_pylist()
    bad = [value for value in values if not is_usable(value)]
    assert len(bad) / COUNT == pytest.approx(0.05, abs=0.005)
    starts = (b"GET", b'{"price":NaN', b'{"event_type"')
    assert all(any(value.startswith(start) for value in bad) for start in starts)


def test_reviews_have_their_share_and_a_rating_from_1_to_5() -> None:
    reviews = [record for record in clean_events() if record["event_type"] == "product_review"]
    assert len(reviews) / COUNT == pytest.approx(0.02, abs=0.003)
    assert {review["rating"] for review in reviews} == {1, 2, 3, 4, 5}
    assert all(record["event_type"] != "product_review" for record in parse(generate(5000, seed=1, **CLEAN)))


def test_figures_are_those_of_the_records() -> None:
    generator = CommerceGenerator(seed=2, **CLEAN)
    records = parse(generator.batch(START, 30_000, rate=14.0))
    totals = [record["total_amount"] for record in records if record["event_type"] == "purchase"]
    devices = Counter(record["device"] for record in records)
    figures = generator.figures
    assert figures.events == 30_000
    assert figures.purchases == len(totals)
    assert figures.revenue_cents == sum(totals) * 100
    assert figures.average_purchase == pytest.approx(float(sum(totals)) / len(totals))
    assert figures.most_popular_device == devices.most_common(1)[0][0]
    locations = Counter(record["location"] for record in records)
    assert {name: count for name, count in figures.events_by_location.items() if count} == locations


def test_figures_leave_out_copies_and_malformed_records() -> None:
    generator = CommerceGenerator(seed=2, **CLEAN | {"duplicate_share": 0.1, "malformed_share": 0.1})
    generator.batch(START, 30_000, rate=14.0)
    assert generator.figures.events == pytest.approx(24_000, rel=0.03)


def test_figures_before_the_first_event_are_empty() -> None:
    figures = CommerceGenerator().figures
    assert (figures.events, figures.average_purchase, figures.most_popular_device) == (0, 0.0, "")


def test_a_day_has_a_busy_evening_and_a_quiet_night() -> None:
    generator = CommerceGenerator()
    by_hour = [generator.activity(START.replace(hour=hour)) for hour in range(24)]
    assert sum(by_hour) / 24 == pytest.approx(1, abs=0.01)
    assert min(by_hour) > 0.05
    assert by_hour[20] > 4 * by_hour[4]


def test_a_million_users_have_ids_of_equal_width() -> None:
    table = generate(2000, seed=1, users=1_000_000, **CLEAN)
    assert {len(key) for key in table["key"].to_pylist()} == {len("user_000000")}


def test_no_events_are_an_empty_batch() -> None:
    assert len(generate(0)) == 0


@pytest.mark.parametrize(
    ("settings", "word"),
    [
        ({"late_share": 1.5}, "late_share"),
        ({"late_share": 0.6, "duplicate_share": 0.6}, "more than 1"),
        ({"users": 0}, "users"),
        ({"products": 20_000}, "products"),
        ({"disorder": timedelta(minutes=6)}, "disorder"),
        ({"disorder": timedelta(seconds=-1)}, "disorder"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings: dict[str, Any], word: str) -> None:
    with pytest.raises(ProfileError, match=word):
        CommerceGenerator(**settings)
