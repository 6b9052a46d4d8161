from oracle_words import (
    Grouped,
    Rule,
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
)

STREAMS = [
    Stream(
        "events",
        columns(id_required=text, seen_required=instant, n=integer),
        event_time="seen",
        allowed_lateness=minutes(5),
        unique=["id"],
        expect={"positive": Rule(lambda row: None if row["n"] is None else row["n"] > 0)},
    )
]
TABLES = {
    "counts": Grouped(
        "events",
        same("window_start", "events", "total"),
        {"events": count_rows(), "total": aggregate("sum", column("n"))},
        window=Window(minutes(1)),
    )
}
