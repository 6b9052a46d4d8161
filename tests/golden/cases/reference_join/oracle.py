from decimal import Decimal

from oracle_words import Grouped, Plain, Stream, aggregate, columns, count_rows, instant, integer, same, text

PRODUCTS = {
    "p1": ("Books", Decimal("12.50")),
    "p2": ("Toys", Decimal("3.00")),
    "p3": ("Toys", Decimal("99.99")),
}


def category(row):
    return PRODUCTS.get(row["product"], (None, None))[0]


def worth(row):
    return row["quantity"] * PRODUCTS[row["product"]][1] if row["product"] in PRODUCTS else None


STREAMS = [
    Stream("events", columns(seen_required=instant, product=text, quantity=integer), event_time="seen")
]
TABLES = {
    "by_category": Grouped(
        "events",
        same("category", "events", "revenue"),
        {"events": count_rows(), "revenue": aggregate("sum", worth)},
        keys={"category": category},
    ),
    "known": Plain(
        "events",
        {**same("seen", "product"), "category": category},
        where=lambda row: row["product"] in PRODUCTS,
    ),
}
