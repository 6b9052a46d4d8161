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
    minutes,
    same,
)

STREAMS = [
    Stream(
        "events",
        columns(seen_required=instant, bought=boolean),
        event_time="seen",
        allowed_lateness=minutes(180),
    )
]
TABLES = {
    "visits": Grouped(
        "events",
        {
            "began": column("window_start"),
            **same("ended"),
            "seconds": lambda row: (row["ended"] - row["first"]).total_seconds(),
            **same("converted"),
        },
        {
            "events": count_rows(),
            "first": aggregate("min", column("seen")),
            "ended": aggregate("max", column("seen")),
            "converted": aggregate("bool_or", column("bought")),
        },
        window=Window(minutes(30), session=True),
        having=lambda row: row["events"] > 1,
    )
}
