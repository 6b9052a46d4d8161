from oracle_words import Grouped, Stream, aggregate, column, columns, count_rows, instant, integer, same, text

STREAMS = [Stream("events", columns(seen_required=instant, user=text, n=integer), event_time="seen")]
TABLES = {
    "totals": Grouped(
        "events",
        {
            **same("user", "first_seen", "last_seen", "events", "total", "average"),
            "score": lambda row: None if row["total"] is None else row["total"] * 2 + row["events"],
        },
        {
            "first_seen": aggregate("min", column("seen")),
            "last_seen": aggregate("max", column("seen")),
            "events": count_rows(),
            "total": aggregate("sum", column("n")),
            "average": aggregate("avg", column("n")),
        },
        keys=same("user"),
    )
}
