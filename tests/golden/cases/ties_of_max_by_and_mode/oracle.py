from oracle_words import Grouped, Stream, aggregate, column, columns, instant, integer, same, text

STREAMS = [
    Stream("events", columns(seen_required=instant, group=text, x=text, rank=integer), event_time="seen")
]
TABLES = {
    "ties": Grouped(
        "events",
        same("group", "last_x", "first_x", "rank_of_greatest", "usual"),
        {
            "last_x": aggregate("max_by", column("x"), column("rank")),
            "first_x": aggregate("min_by", column("x"), column("rank")),
            "rank_of_greatest": aggregate("max_by", column("rank"), column("x")),
            "usual": aggregate("mode", column("x")),
        },
        keys=same("group"),
    )
}
