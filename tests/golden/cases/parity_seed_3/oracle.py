from oracle_words import (
    Grouped,
    Plain,
    Row,
    Rule,
    Stream,
    Window,
    aggregate,
    column,
    columns,
    decimal,
    double,
    instant,
    integer,
    minutes,
    same,
    text,
    windowed,
)


def large(row: Row) -> bool | None:
    return None if row["n"] is None else row["n"] > 2


def is_busy(row: Row) -> bool | None:
    return None if row["total"] is None else row["total"] > 5


STREAMS = [
    Stream(
        "events",
        columns(
            id=text,
            seen_required=instant,
            user=text,
            kind_required=text,
            n=integer,
            amount=decimal(10, 2),
            ratio=double,
        ),
        event_time="seen",
        allowed_lateness=minutes(2),
        unique=["id"],
        derive={"twice": lambda row: None if row["n"] is None else row["n"] * 2},
        expect={
            "known_kind": Rule(lambda row: row["kind"] in ("view", "buy", "back")),
            "small": Rule(lambda row: row["n"] is None or row["n"] < 1000),
        },
    )
]
TABLES = {
    "t0": Grouped(
        "events",
        windowed | same("value_0"),
        {"value_0": aggregate("avg", column("n"))},
        window=Window(minutes(4), session=True),
        where=lambda row: row["amount"] is not None,
    ),
    "t1": Grouped(
        "events",
        windowed | same("value_0", "value_1"),
        {
            "value_0": aggregate("mode", column("n")),
            "value_1": aggregate("var_samp", column("n")),
            "total": aggregate("sum", column("n")),
        },
        window=Window(minutes(3), minutes(1)),
        having=is_busy,
    ),
    "t2": Plain(
        "events",
        same("user", "kind", "id", "seen", "n", "amount", "twice"),
        where=large,
        key=["user", "kind"],
    ),
}
