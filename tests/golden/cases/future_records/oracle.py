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
)

STREAMS = [
    Stream(
        "events",
        columns(seen_required=instant, n=integer),
        event_time="seen",
        allowed_lateness=minutes(1),
        future_tolerance=minutes(30),
    )
]
TABLES = {
    "quarters": Grouped(
        "events",
        same("window_start", "events", "total"),
        {"events": count_rows(), "total": aggregate("sum", column("n"))},
        window=Window(minutes(15)),
    )
}
