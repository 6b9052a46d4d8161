from oracle_words import Plain, Stream, columns, instant, integer, minutes, same

STREAMS = [
    Stream(
        "events", columns(seen_required=instant, n=integer), event_time="seen", allowed_lateness=minutes(5)
    )
]
TABLES = {"kept": Plain("events", same("seen", "n"))}
