from oracle_words import Grouped, Stream, aggregate, columns, count_rows, instant, integer, same, text


def size(row):
    if row["n"] is None:
        return None
    return "small" if row["n"] < 5 else "middle" if row["n"] < 50 else "large"


STREAMS = [Stream("events", columns(seen_required=instant, user=text, n=integer), event_time="seen")]
TABLES = {
    "sizes": Grouped(
        "events",
        {**same("size", "events", "of_a"), "word": lambda row: "several" if row["events"] > 1 else "one"},
        {"events": count_rows(), "of_a": aggregate("sum", lambda row: row["n"] if row["user"] == "a" else 0)},
        keys={"size": size},
    ),
    "halves": Grouped(
        "events",
        same("big", "events", "halves"),
        {"events": count_rows(), "halves": aggregate("sum", lambda row: row["n"] // 2)},
        keys={"big": lambda row: row["n"] > 5},
        where=lambda row: None if row["n"] is None else row["n"] > 0,
    ),
}
