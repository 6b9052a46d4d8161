from oracle_words import Plain, Stream, columns, instant, integer, minutes, same

STREAMS = [
    Stream("events", columns(at_required=instant, n=integer), event_time="at", allowed_lateness=minutes(5))
]
TABLES = {"kept": Plain("events", same("at", "n"))}
