from oracle_words import (
    Grouped,
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
        columns(seen_required=instant, name=text, n=integer),
        event_time="seen",
        allowed_lateness=minutes(5),
    )
]
TABLES = {
    "names": Grouped(
        "events",
        same("name", "events", "total"),
        {"events": count_rows(), "total": aggregate("sum", column("n"))},
        keys=same("name"),
    )
}
