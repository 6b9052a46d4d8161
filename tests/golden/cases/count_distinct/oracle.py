from oracle_words import (
    Grouped,
    Stream,
    Window,
    aggregate,
    column,
    columns,
    count_rows,
    decimal,
    instant,
    minutes,
    same,
    text,
)

STREAMS = [
    Stream(
        "events",
        columns(seen_required=instant, type_required=text, user=text, amount=decimal(8, 2)),
        event_time="seen",
        allowed_lateness=minutes(5),
    )
]
TABLES = {
    "minutes": Grouped(
        "events",
        same("window_start", "type", "events", "users", "amounts"),
        {
            "events": count_rows(),
            "users": aggregate("count_distinct", column("user")),
            "amounts": aggregate("count_distinct", column("amount")),
        },
        keys=same("type"),
        window=Window(minutes(1)),
    ),
    "overall": Grouped(
        "events",
        same("users", "times"),
        {
            "users": aggregate("count_distinct", column("user")),
            "times": aggregate("count_distinct", column("seen")),
        },
    ),
    "visits": Grouped(
        "events",
        same("user", "window_start", "types"),
        {"types": aggregate("count_distinct", column("type"))},
        keys=same("user"),
        window=Window(minutes(0.75), session=True),
    ),
}
