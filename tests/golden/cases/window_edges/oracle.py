from oracle_words import (
    Grouped,
    Stream,
    Window,
    aggregate,
    column,
    columns,
    count_rows,
    instant,
    integer,
    minutes,
    same,
    windowed,
)

STREAMS = [
    Stream(
        "events", columns(seen_required=instant, n=integer), event_time="seen", allowed_lateness=minutes(10)
    )
]
TABLES = {
    "five": Grouped(
        "events",
        {**windowed, **same("events", "total")},
        {"events": count_rows(), "total": aggregate("sum", column("n"))},
        window=Window(minutes(5)),
    )
}
