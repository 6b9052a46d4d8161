from oracle_words import Plain, Stream, columns, instant, minutes, same, text

STREAMS = [
    Stream(
        "events",
        columns(user=text, at_required=instant, page=text),
        event_time="at",
        allowed_lateness=minutes(1),
    )
]
TABLES = {"last_page": Plain("events", same("user", "at", "page"), key=["user"])}
