from oracle_words import Grouped, Stream, aggregate, bigint, column, columns, instant, same, text

STREAMS = [Stream("events", columns(seen_required=instant, g=text, n=bigint), event_time="seen")]
TABLES = {
    "spread": Grouped(
        "events",
        same("g", "sample", "population", "deviation", "deviation_pop"),
        {
            "sample": aggregate("var_samp", column("n")),
            "population": aggregate("var_pop", column("n")),
            "deviation": aggregate("stddev_samp", column("n")),
            "deviation_pop": aggregate("stddev_pop", column("n")),
        },
        keys=same("g"),
    )
}
