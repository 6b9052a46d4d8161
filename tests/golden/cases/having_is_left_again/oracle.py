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
)


def over(limit):
    return lambda row: None if row["balance"] is None else row["balance"] > limit


STREAMS = [Stream("events", columns(seen_required=instant, user=text, n=integer), event_time="seen")]
TABLES = {
    "rich": Grouped(
        "events",
        same("user", "balance"),
        {"balance": aggregate("sum", column("n"))},
        keys=same("user"),
        having=over(5),
    ),
    "windows": Grouped(
        "events",
        same("window_start", "balance"),
        {"balance": aggregate("sum", column("n")), "events": count_rows()},
        window=Window(minutes(2)),
        having=lambda row: row["events"] == 2 and over(0)(row),
    ),
}
