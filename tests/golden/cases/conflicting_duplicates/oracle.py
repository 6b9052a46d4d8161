from oracle_words import (
    Grouped,
    Plain,
    Stream,
    aggregate,
    column,
    columns,
    count_rows,
    instant,
    integer,
    minutes,
    same,
    text,
)

STREAMS = [
    Stream(
        "events",
        columns(id=text, seen_required=instant, n=integer),
        event_time="seen",
        allowed_lateness=minutes(5),
        unique=["id"],
    )
]
TABLES = {
    "totals": Grouped(
        "events",
        same("events", "ids", "total"),
        {
            "events": count_rows(),
            "ids": aggregate("count_distinct", column("id")),
            "total": aggregate("sum", column("n")),
        },
    ),
    "kept": Plain("events", same("id", "seen", "n")),
}
