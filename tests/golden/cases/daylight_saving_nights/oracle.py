from oracle_words import (
    Grouped,
    Stream,
    Window,
    aggregate,
    column,
    columns,
    count_rows,
    instant,
    minutes,
    same,
    windowed,
)

STREAMS = [Stream("events", columns(seen_required=instant), event_time="seen", allowed_lateness=minutes(5))]
TABLES = {
    "hours": Grouped(
        "events",
        {**windowed, **same("events", "first_event")},
        {"events": count_rows(), "first_event": aggregate("min", column("seen"))},
        window=Window(minutes(60)),
    ),
    "days": Grouped(
        "events", {**windowed, **same("events")}, {"events": count_rows()}, window=Window(minutes(24 * 60))
    ),
    "by_day": Grouped(
        "events",
        same("day", "hour", "events"),
        {"events": count_rows()},
        keys={"day": lambda row: row["seen"].date(), "hour": lambda row: row["seen"].hour},
    ),
}
