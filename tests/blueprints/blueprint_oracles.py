"""The blueprints' streams, and some of their tables, in the oracle's words: a second reading of each."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from typing import Any

from oracle_model import Expression, Grouped, Plain, Row, Rule, Stream, Table, View, Window
from oracle_values import boolean, decimal, instant, integer, list_of, struct, text
from oracle_words import aggregate, column, columns, count_rows, is_value, same, windowed

__all__ = ["ORACLES", "Oracle"]

MONEY = decimal(12, 2)
MINUTE = timedelta(minutes=1)


@dataclass(frozen=True)
class Oracle:
    """A stream, and those of its tables, or their columns, that follow without rounding of doubles."""

    stream: Stream
    tables: Mapping[str, Table]


def one_of(name: str, *values: str) -> Expression:
    """`name IN (values)`: NULL for NULL."""
    return lambda row: None if row[name] is None else row[name] in values


def in_range(name: str, least: int, most: int) -> Expression:
    return lambda row: None if row[name] is None else least <= row[name] <= most


def not_empty(name: str) -> Expression:
    return lambda row: None if row[name] is None else row[name] != ""


def or_nothing(name: str) -> Expression:
    """`coalesce(name, 0)` of a sum."""
    return lambda row: Decimal("0.00") if row[name] is None else row[name]


# --- commerce


def _basket(row: Row) -> Decimal | None:
    if row["items"] is None:
        return None
    priced = [
        item["price"] * item["quantity"]
        for item in row["items"]
        if item is not None and None not in (item["price"], item["quantity"])
    ]
    return sum(priced, Decimal(0)) if priced else None


_bought = is_value("event_type", "purchase")

COMMERCE = Oracle(
    Stream(
        "events",
        columns(
            event_id_required=text, event_type_required=text, user_id_required=text,
            timestamp_required=instant, device=text, location=text, session_id=text, page=text,
            product_id=text, category=text, price=MONEY, quantity=integer, order_id=text,
            items=list_of(struct(product_id=text, quantity=integer, price=MONEY)), total_amount=MONEY,
            payment_method=text, query=text, results=integer, method=text, success=boolean, rating=integer,
        ),
        event_time="timestamp",
        allowed_lateness=5 * MINUTE,
        unique=("event_id",),
        derive={"items_total": _basket},
        expect={
            "known_type": Rule(
                one_of("event_type", "user_login", "page_view", "item_click", "cart_add", "purchase",
                       "search")
            ),
            "known_device": Rule(one_of("device", "mobile", "desktop", "tablet")),
            "rating_in_range": Rule(lambda row: row["rating"] is None or 1 <= row["rating"] <= 5),
        },
    ),
    {
        "event_counts": Grouped(
            "events",
            {**windowed, **same("event_type", "events", "users")},
            {"events": count_rows(), "users": aggregate("count_distinct", column("user_id"))},
            keys=same("event_type"),
            window=Window(MINUTE),
        ),
        "purchase_analytics": Grouped(
            "events",
            {**windowed, **same("orders", "revenue", "average_order", "largest_order", "buyers")},
            {
                "orders": count_rows(),
                "revenue": aggregate("sum", column("total_amount")),
                "average_order": aggregate("avg", column("total_amount")),
                "largest_order": aggregate("max", column("total_amount")),
                "buyers": aggregate("count_distinct", column("user_id")),
            },
            window=Window(10 * MINUTE),
            where=_bought,
        ),
        "sessions": Grouped(
            "events",
            {**same("user_id", "session_end", "events", "converted"),
             "session_start": column("window_start")},
            {
                "session_end": aggregate("max", column("timestamp")),
                "events": count_rows(),
                "converted": aggregate("bool_or", _bought),
            },
            keys=same("user_id"),
            window=Window(30 * MINUTE, session=True),
        ),
        "events_clean": Plain(
            "events", same("event_id", "event_type", "user_id", "timestamp", "items_total")
        ),
    },
)  # fmt: skip

# --- customers

_sold = is_value("event_type", "purchase")

CUSTOMERS = Oracle(
    Stream(
        "events",
        columns(
            timestamp_required=instant, customer_id=text, event_type=text, product_category=text,
            product_id=text, amount=MONEY, quantity=integer, location=text,
        ),
        event_time="timestamp",
        allowed_lateness=5 * MINUTE,
        unique=("customer_id", "timestamp", "event_type", "product_id"),
        expect={
            "customer_id_not_empty": Rule(not_empty("customer_id")),
            "product_id_not_empty": Rule(not_empty("product_id")),
            "category_not_empty": Rule(not_empty("product_category")),
            "known_type": Rule(
                one_of("event_type", "view", "add_to_cart", "remove_from_cart", "purchase", "return",
                       "support_contact")
            ),
            "amount_present": Rule(
                lambda row: row["amount"] is not None or row["event_type"] not in ("purchase", "return")
            ),
            "amount_not_negative": Rule(lambda row: row["amount"] is None or row["amount"] >= 0),
            "quantity_in_range": Rule(in_range("quantity", 1, 100)),
        },
    ),
    {
        "category_metrics": Grouped(
            "events",
            {**windowed, **same("product_category", "events", "purchases", "average_amount", "customers"),
             "revenue": or_nothing("revenue")},
            {
                "events": count_rows(),
                "purchases": count_rows(where=_sold),
                "revenue": aggregate("sum", column("amount"), where=_sold),
                "average_amount": aggregate("avg", column("amount"), where=_sold),
                "customers": aggregate("count_distinct", column("customer_id")),
            },
            keys=same("product_category"),
            window=Window(MINUTE),
        ),
        "customer_activity": Grouped(
            "events",
            {**same("customer_id", "first_seen", "last_seen", "events", "purchases", "returns",
                    "favourite_category", "last_category", "favourite_city", "last_city"),
             "spent": or_nothing("spent")},
            {
                "first_seen": aggregate("min", column("timestamp")),
                "last_seen": aggregate("max", column("timestamp")),
                "events": count_rows(),
                "purchases": count_rows(where=_sold),
                "spent": aggregate("sum", column("amount"), where=_sold),
                "returns": count_rows(where=is_value("event_type", "return")),
                "favourite_category": aggregate("mode", column("product_category")),
                "last_category": aggregate("max_by", column("product_category"), column("timestamp")),
                "favourite_city": aggregate("mode", column("location")),
                "last_city": aggregate("max_by", column("location"), column("timestamp")),
            },
            keys=same("customer_id"),
        ),
    },
)  # fmt: skip

# --- operations


def _log_complete(row: Row) -> bool | None:
    if row["kind"] != "log":
        return True
    if row["service"] is None:
        return False
    return one_of("level", "DEBUG", "INFO", "WARN", "ERROR")(row)


def _transaction_complete(row: Row) -> bool | None:
    if row["kind"] != "transaction":
        return True
    if None in (row["transaction_id"], row["account"], row["currency"]):
        return False
    return one_of("status", "ok", "failed", "pending")(row)


_paid = is_value("kind", "transaction")

OPERATIONS = Oracle(
    Stream(
        "events",
        columns(
            event_id_required=text, kind_required=text, timestamp_required=instant, service=text, level=text,
            message=text, duration_ms=integer, host=text, user_id=text, page=text, referrer=text,
            ms_on_page=integer, transaction_id=text, account=text, amount=MONEY, currency=text, status=text,
            latency_ms=integer,
        ),
        event_time="timestamp",
        allowed_lateness=MINUTE,
        unique=("event_id",),
        expect={
            "known_kind": Rule(one_of("kind", "log", "click", "transaction")),
            "log_complete": Rule(_log_complete),
            "click_complete": Rule(
                lambda row: row["kind"] != "click" or None not in (row["user_id"], row["page"])
            ),
            "transaction_complete": Rule(_transaction_complete),
            "amount_present": Rule(
                lambda row: row["kind"] != "transaction" or (row["amount"] is not None and row["amount"] >= 0)
            ),
        },
    ),
    {
        "service_health": Grouped(
            "events",
            {**windowed, **same("service", "lines", "errors", "last_event_at")},
            {
                "lines": count_rows(),
                "errors": count_rows(where=is_value("level", "ERROR")),
                "last_event_at": aggregate("max", column("timestamp")),
            },
            keys=same("service"),
            window=Window(MINUTE),
            where=is_value("kind", "log"),
        ),
        "transaction_totals": Grouped(
            "events",
            {**windowed, **same("currency", "status", "transactions", "amount")},
            {"transactions": count_rows(), "amount": aggregate("sum", column("amount"))},
            keys=same("currency", "status"),
            window=Window(MINUTE),
            where=_paid,
        ),
        "account_risk": Grouped(
            "events",
            {**windowed, **same("account", "transactions", "failed", "amount")},
            {
                "transactions": count_rows(),
                "failed": count_rows(where=is_value("status", "failed")),
                "amount": aggregate("sum", column("amount")),
            },
            keys=same("account"),
            window=Window(10 * MINUTE, MINUTE),
            where=_paid,
        ),
    },
)  # fmt: skip

# --- signups


def _country(row: Row) -> Any:
    return None if row["address"] is None else row["address"].rpartition(",")[2].strip() or None


def _registered_at(row: Row) -> Any:
    return None if row["registered_date"] is None else instant(row["registered_date"])


_EMAIL = re.compile(r"[^@\s]+@[^@\s]+\.[^@\s]+")
_USER = ("id", "first_name", "last_name", "gender", "address", "post_code", "email", "username",
         "registered_date", "phone", "picture", "country")  # fmt: skip


def _by_country(tables: Mapping[str, list[Row]]) -> list[Row]:
    counted = Counter(row["country"] for row in tables["created_users"])
    return [{"country": country, "users": users} for country, users in counted.items()]


SIGNUPS = Oracle(
    Stream(
        "users_created",
        columns(
            id_required=text, polled_at_required=instant, first_name=text, last_name=text, gender=text,
            address=text, post_code=text, email=text, username=text, registered_date=text, phone=text,
            picture=text,
        ),
        event_time="polled_at",
        allowed_lateness=60 * MINUTE,
        unique=("id",),
        derive={"country": _country, "registered_at": _registered_at},
        expect={
            "id_is_there": Rule(not_empty("id")),
            "email_has_its_form": Rule(
                lambda row: None if row["email"] is None else bool(_EMAIL.fullmatch(row["email"]))
            ),
            "known_gender": Rule(one_of("gender", "female", "male")),
            "country_is_there": Rule(lambda row: row["country"] is not None),
            "date_is_one": Rule(lambda row: row["registered_at"] is not None),
            "registered_before_polled": Rule(lambda row: row["registered_at"] <= row["polled_at"]),
        },
    ),
    {
        "created_users": Plain(
            "users_created",
            {
                **same(*_USER),
                "year": lambda row: row["registered_at"].strftime("%Y"),
                "month": lambda row: row["registered_at"].strftime("%m"),
                "day": lambda row: row["registered_at"].strftime("%d"),
            },
            key=("id",),
        ),
        "users_total": View(lambda tables: [{"scope": "all", "users": len(tables["created_users"])}]),
        "users_by_country": View(_by_country),
    },
)  # fmt: skip

ORACLES: Mapping[str, Oracle] = {
    "commerce": COMMERCE,
    "customers": CUSTOMERS,
    "operations": OPERATIONS,
    "signups": SIGNUPS,
}
"""By blueprint."""
