from oracle_words import Grouped, Stream, aggregate, bigint, column, columns, instant, same

STREAMS = [Stream("events", columns(seen_required=instant, n=bigint), event_time="seen")]
TABLES = {
    "total": Grouped(
        "events",
        same("total", "least", "most"),
        {
            "total": aggregate("sum", column("n")),
            "least": aggregate("min", column("n")),
            "most": aggregate("max", column("n")),
        },
    )
}
