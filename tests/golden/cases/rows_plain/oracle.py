from oracle_words import Plain, Stream, columns, instant, integer, same, text

STREAMS = [
    Stream("events", columns(id_required=text, seen_required=instant, amount=integer), event_time="seen")
]
TABLES = {
    "big": Plain(
        "events",
        {**same("id", "seen"), "twice": lambda row: row["amount"] * 2, "loud": lambda row: row["id"].upper()},
        where=lambda row: None if row["amount"] is None else row["amount"] >= 5,
    )
}
