from oracle_words import (
    Grouped,
    Plain,
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
    text,
    windowed,
)

STREAMS = [
    Stream(
        "events",
        columns(seen_required=instant, user=text, n=integer),
        event_time="seen",
        allowed_lateness=minutes(2),
    )
]
TABLES = {
    "minutes": Grouped(
        "events",
        same("window_start", "events", "total"),
        {"events": count_rows(), "total": aggregate("sum", column("n"))},
        window=Window(minutes(1)),
    ),
    "visits": Grouped(
        "events",
        {**same("user"), **windowed, **same("total")},
        {"total": aggregate("sum", column("n"))},
        keys=same("user"),
        window=Window(minutes(3), session=True),
    ),
    "latest": Plain("events", same("user", "seen", "n"), key=["user"]),
}
