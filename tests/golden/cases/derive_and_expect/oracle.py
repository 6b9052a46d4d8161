from oracle_words import (
    Grouped,
    Rule,
    Stream,
    aggregate,
    column,
    columns,
    count_rows,
    instant,
    integer,
    is_value,
    same,
    text,
)


def number(row):
    return None if row["number"] is None else int(row["number"])


STREAMS = [
    Stream(
        "events",
        columns(seen_required=instant, device=text, number=text, weight=integer),
        event_time="seen",
        derive={
            "is_mobile": is_value("device", "mobile"),
            "number_read": number,
            "twice": lambda row: None if row["number_read"] is None else row["number_read"] * 2,
        },
        expect={
            "known_device": Rule(
                lambda row: None if row["device"] is None else row["device"] in ("mobile", "desktop")
            ),
            "small": Rule(lambda row: row["number_read"] is None or row["number_read"] < 10),
            "weighs": Rule(lambda row: None if row["weight"] is None else row["weight"] > 0, warn=True),
        },
    )
]
TABLES = {
    "devices": Grouped(
        "events",
        same("is_mobile", "events", "doubled"),
        {"events": count_rows(), "doubled": aggregate("sum", column("twice"))},
        keys=same("is_mobile"),
    )
}
