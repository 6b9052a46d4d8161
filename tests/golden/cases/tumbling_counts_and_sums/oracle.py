from oracle_words import (
    Grouped,
    Stream,
    Window,
    aggregate,
    column,
    columns,
    count_rows,
    decimal,
    instant,
    minutes,
    same,
    text,
    windowed,
)

STREAMS = [
    Stream(
        "events",
        columns(seen_required=instant, type_required=text, amount=decimal(12, 2)),
        event_time="seen",
        allowed_lateness=minutes(15),
    )
]
TABLES = {
    "by_type": Grouped(
        "events",
        {**windowed, **same("type", "events", "amounts", "total", "least", "most")},
        {
            "events": count_rows(),
            "amounts": aggregate("count", column("amount")),
            "total": aggregate("sum", column("amount")),
            "least": aggregate("min", column("amount")),
            "most": aggregate("max", column("amount")),
        },
        keys=same("type"),
        window=Window(minutes(10)),
    )
}
