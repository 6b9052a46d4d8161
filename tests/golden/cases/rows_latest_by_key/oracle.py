from oracle_words import Plain, Stream, columns, instant, minutes, same, text

STREAMS = [
    Stream(
        "events",
        columns(user=text, seen_required=instant, page=text),
        event_time="seen",
        allowed_lateness=minutes(1),
    )
]
TABLES = {"last_page": Plain("events", same("user", "seen", "page"), key=["user"])}
