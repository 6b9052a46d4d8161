from oracle_words import (
    Grouped,
    Stream,
    View,
    Window,
    aggregate,
    column,
    columns,
    instant,
    integer,
    minutes,
    same,
)


def net(tables):
    returned = {row["window_start"]: row["n"] for row in tables["returned"]}
    return [
        {"window_start": row["window_start"], "n": row["n"] - returned[row["window_start"]]}
        for row in tables["ordered"]
        if row["window_start"] in returned
    ]


STREAMS = [
    Stream("orders", columns(seen_required=instant, n=integer), event_time="seen"),
    Stream(
        "returns", columns(n=integer, seen_required=instant), event_time="seen", allowed_lateness=minutes(10)
    ),
]
TABLES = {
    **{
        name: Grouped(
            source,
            same("window_start", "n"),
            {"n": aggregate("sum", column("n"))},
            window=Window(minutes(2)),
        )
        for name, source in {"ordered": "orders", "returned": "returns"}.items()
    },
    "net": View(net),
}
