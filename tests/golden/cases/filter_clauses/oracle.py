from oracle_words import (
    Grouped,
    Stream,
    aggregate,
    column,
    columns,
    count_rows,
    decimal,
    instant,
    is_value,
    same,
    text,
)


def other(kind):
    return lambda row: None if row["type"] is None else row["type"] != kind


STREAMS = [
    Stream(
        "events",
        columns(seen_required=instant, user_required=text, type=text, amount=decimal(8, 2)),
        event_time="seen",
    )
]
TABLES = {
    "users": Grouped(
        "events",
        same("user", "events", "buys", "others", "spent", "amounts", "last_costly", "returned"),
        {
            "events": count_rows(),
            "buys": count_rows(where=is_value("type", "buy")),
            "others": count_rows(where=other("buy")),
            "spent": aggregate("sum", column("amount"), where=is_value("type", "buy")),
            "amounts": aggregate("count_distinct", column("amount"), where=other("view")),
            "last_costly": aggregate(
                "max_by",
                column("type"),
                column("seen"),
                where=lambda row: None if row["amount"] is None else row["amount"] > 2,
            ),
            "returned": aggregate("count_if", is_value("type", "return")),
        },
        keys=same("user"),
    )
}
