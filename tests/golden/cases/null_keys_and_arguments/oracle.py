from oracle_words import (
    Grouped,
    Stream,
    Window,
    aggregate,
    boolean,
    column,
    columns,
    count_rows,
    instant,
    integer,
    minutes,
    same,
    text,
)


def over_three(row):
    return None if row["n"] is None else row["n"] > 3


STREAMS = [
    Stream("events", columns(seen_required=instant, user=text, n=integer, ok=boolean), event_time="seen")
]
TABLES = {
    "groups": Grouped(
        "events",
        {
            **same(
                "window_start", "user", "ok", "events", "numbers", "different", "total", "average", "least"
            ),
            **same("every_ok", "any_big", "last_n", "usual"),
            "total_or_zero": lambda row: row["total"] or 0,
        },
        {
            "events": count_rows(),
            "numbers": aggregate("count", column("n")),
            "different": aggregate("count_distinct", column("n")),
            "total": aggregate("sum", column("n")),
            "average": aggregate("avg", column("n")),
            "least": aggregate("min", column("n")),
            "every_ok": aggregate("bool_and", column("ok")),
            "any_big": aggregate("bool_or", over_three),
            "last_n": aggregate("max_by", column("n"), column("seen")),
            "usual": aggregate("mode", column("n")),
        },
        keys=same("user", "ok"),
        window=Window(minutes(5)),
    )
}
