from oracle_words import Grouped, Stream, aggregate, column, columns, count_rows, instant, integer, same, text

STREAMS = [Stream("events", columns(seen_required=instant, g=text, a=integer, b=integer), event_time="seen")]
TABLES = {
    "rates": Grouped(
        "events",
        {
            **same("g"),
            "rate": lambda row: None if row["a"] is None or not row["b"] else row["a"] / row["b"],
            "total": lambda row: -1 if row["a"] is None else row["a"],
            "width": lambda row: None if row["most"] is None else row["most"] - row["least"],
            "share": lambda row: row["events"] * 100 / (row["numbers"] + 1),
            "label": lambda row: f"{row['g']}:{row['events']}",
        },
        {
            "a": aggregate("sum", column("a")),
            "b": aggregate("sum", column("b")),
            "most": aggregate("max", column("a")),
            "least": aggregate("min", column("a")),
            "events": count_rows(),
            "numbers": aggregate("count", column("a")),
        },
        keys=same("g"),
    )
}
