from oracle_words import Grouped, Plain, Stream, column, columns, count_rows, instant, same, text


def number(row):
    try:
        return int(row["number"])
    except ValueError as reason:
        raise ArithmeticError from reason


STREAMS = [Stream("events", columns(seen_required=instant, kind=text, number=text), event_time="seen")]
TABLES = {
    "either": Grouped(
        "events",
        same("kind", "events"),
        {"events": count_rows()},
        keys={"kind": column("kind")},
        where=lambda row: row["kind"] != "number" or number(row) > 3,
    ),
    "large": Plain(
        "events",
        {"kind": column("kind"), "number": number},
        where=lambda row: row["kind"] == "number" and (row["number"] < "1" or number(row) > 3),
    ),
}
