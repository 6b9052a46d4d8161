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
    text,
    windowed,
)

STREAMS = [
    Stream(
        "events",
        columns(seen_required=instant, user=text, n=integer),
        event_time="seen",
        allowed_lateness=minutes(5),
    )
]
TABLES = {
    "activity": Grouped(
        "events",
        {**windowed, **same("user", "events", "total", "last_event")},
        {
            "events": count_rows(),
            "total": aggregate("sum", column("n")),
            "last_event": aggregate("max", column("seen")),
        },
        keys=same("user"),
        window=Window(minutes(5), minutes(1)),
    ),
    "uneven": Grouped(
        "events",
        {**windowed, **same("total")},
        {"total": aggregate("sum", column("n"))},
        window=Window(minutes(5), minutes(2)),
    ),
}
