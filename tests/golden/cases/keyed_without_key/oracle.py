from oracle_words import Grouped, Stream, aggregate, column, columns, count_rows, instant, integer, same

STREAMS = [Stream("events", columns(seen_required=instant, n=integer), event_time="seen")]
TABLES = {
    "everything": Grouped(
        "events",
        same("events", "numbers", "total", "most"),
        {
            "events": count_rows(),
            "numbers": aggregate("count", column("n")),
            "total": aggregate("sum", column("n")),
            "most": aggregate("max", column("n")),
        },
    ),
    "nothing": Grouped(
        "events",
        same("events", "numbers", "total", "average"),
        {
            "events": count_rows(),
            "numbers": aggregate("count_distinct", column("n")),
            "total": aggregate("sum", column("n")),
            "average": aggregate("avg", column("n")),
        },
        where=lambda row: None if row["n"] is None else row["n"] > 100,
    ),
}
