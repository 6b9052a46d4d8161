from oracle_words import Grouped, Plain, Stream, aggregate, column, columns, count_rows, instant, same, text


def number(row):
    try:
        return None if row["number"] is None else int(row["number"])
    except ValueError as reason:
        raise ArithmeticError from reason


STREAMS = [Stream("events", columns(seen_required=instant, number=text), event_time="seen")]
TABLES = {
    "totals": Grouped(
        "events", same("events", "total"), {"events": count_rows(), "total": aggregate("sum", number)}
    ),
    "odd": Plain(
        "events", same("number"), where=lambda row: None if number(row) is None else number(row) % 2 == 1
    ),
    "all_of_them": Grouped(
        "events",
        same("events", "numbers"),
        {"events": count_rows(), "numbers": aggregate("count", column("number"))},
    ),
}
