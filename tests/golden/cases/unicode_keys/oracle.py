from oracle_words import Grouped, Stream, aggregate, column, columns, count_rows, instant, integer, same, text

STREAMS = [Stream("events", columns(seen_required=instant, name=text, n=integer), event_time="seen")]
TABLES = {
    "names": Grouped(
        "events",
        {**same("name"), "points": lambda row: len(row["name"]), **same("events", "total")},
        {"events": count_rows(), "total": aggregate("sum", column("n"))},
        keys=same("name"),
    ),
    "extremes": Grouped(
        "events",
        same("least", "most", "names"),
        {
            "least": aggregate("min", column("name")),
            "most": aggregate("max", column("name")),
            "names": aggregate("count_distinct", column("name")),
        },
    ),
}
