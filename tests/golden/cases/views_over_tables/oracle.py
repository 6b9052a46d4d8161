from oracle_words import (
    Grouped,
    Stream,
    View,
    Window,
    columns,
    count_rows,
    instant,
    is_value,
    minutes,
    same,
    text,
)


def funnel(tables):
    starts = sorted({row["window_start"] for name in ("views", "purchases") for row in tables[name]})
    views = {row["window_start"]: row["views"] for row in tables["views"]}
    purchases = {row["window_start"]: row["purchases"] for row in tables["purchases"]}
    return [
        {"window_start": start, "views": views.get(start, 0), "purchases": purchases.get(start, 0)}
        for start in starts
    ]


def running(tables):
    rows = sorted(tables["funnel"], key=lambda row: row["window_start"])
    return [
        {
            "window_start": row["window_start"],
            "so_far": sum(one["purchases"] for one in rows[: number + 1]),
        }
        for number, row in enumerate(rows)
    ]


STREAMS = [Stream("events", columns(seen_required=instant, type_required=text), event_time="seen")]
TABLES = {
    **{
        name: Grouped(
            "events",
            same("window_start", name),
            {name: count_rows()},
            window=Window(minutes(10)),
            where=is_value("type", kind),
        )
        for name, kind in {"views": "view", "purchases": "purchase"}.items()
    },
    "funnel": View(funnel),
    "running": View(running),
}
