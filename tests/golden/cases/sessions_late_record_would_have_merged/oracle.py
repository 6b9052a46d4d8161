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
    "sessions": Grouped(
        "events",
        {**same("user"), **windowed, **same("events", "total", "first_event")},
        {
            "events": count_rows(),
            "total": aggregate("sum", column("n")),
            "first_event": aggregate("min", column("seen")),
        },
        keys=same("user"),
        window=Window(minutes(10), session=True),
    )
}
