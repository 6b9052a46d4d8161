from oracle_words import Grouped, Stream, Window, columns, count_rows, instant, minutes, same, windowed

STREAMS = [Stream("events", columns(seen_required=instant), event_time="seen")]
TABLES = {
    name: Grouped("events", {**windowed, **same("events")}, {"events": count_rows()}, window=Window(size))
    for name, size in {"minutes": minutes(7), "weeks": minutes(7 * 24 * 60)}.items()
}
