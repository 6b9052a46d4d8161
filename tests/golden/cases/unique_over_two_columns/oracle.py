from oracle_words import Grouped, Stream, columns, count_rows, instant, minutes, same, text

STREAMS = [
    Stream(
        "events",
        columns(user=text, item=text, seen_required=instant),
        event_time="seen",
        allowed_lateness=minutes(5),
        unique=["user", "item"],
    )
]
TABLES = {
    "pairs": Grouped(
        "events", same("user", "item", "events"), {"events": count_rows()}, keys=same("user", "item")
    )
}
