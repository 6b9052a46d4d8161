from oracle_words import (
    Grouped,
    Stream,
    aggregate,
    column,
    columns,
    count_rows,
    decimal,
    instant,
    minutes,
    same,
    text,
)

STREAMS = [
    Stream(
        "events",
        columns(seen_required=instant, user=text, amount=decimal(12, 2)),
        event_time="seen",
        allowed_lateness=minutes(5),
    )
]
TABLES = {
    "amounts": Grouped(
        "events",
        same("user", "events", "total", "average", "least", "most"),
        {
            "events": count_rows(),
            "total": aggregate("sum", column("amount")),
            "average": aggregate("avg", column("amount")),
            "least": aggregate("min", column("amount")),
            "most": aggregate("max", column("amount")),
        },
        keys=same("user"),
    )
}
