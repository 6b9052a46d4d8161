from oracle_words import (
    Grouped,
    Plain,
    Stream,
    Window,
    aggregate,
    column,
    columns,
    count_rows,
    decimal,
    instant,
    integer,
    list_of,
    minutes,
    same,
    struct,
    text,
)


def items(row):
    return [row | {"item": item} for item in row["items"] or []]


def worth(row):
    item = row["item"]
    return None if item["price"] is None else item["quantity"] * item["price"]


STREAMS = [
    Stream(
        "events",
        columns(
            seen_required=instant,
            order_id=text,
            items=list_of(struct(product=text, quantity=integer, price=decimal(8, 2))),
        ),
        event_time="seen",
    )
]
TABLES = {
    "sales": Grouped(
        "events",
        same("window_start", "product", "bought", "revenue", "lines", "orders"),
        {
            "bought": aggregate("sum", lambda row: row["item"]["quantity"]),
            "revenue": aggregate("sum", worth),
            "lines": count_rows(),
            "orders": aggregate("count_distinct", column("order_id")),
        },
        keys={"product": lambda row: row["item"]["product"]},
        window=Window(minutes(60)),
        unnest=items,
    ),
    "lines": Plain(
        "events",
        {**same("order_id"), "product": lambda row: row["item"]["product"]},
        unnest=items,
        where=lambda row: row["item"]["quantity"] > 1,
    ),
}
