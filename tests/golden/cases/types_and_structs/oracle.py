from oracle_words import (
    Grouped,
    Plain,
    Stream,
    aggregate,
    bigint,
    boolean,
    column,
    columns,
    count_rows,
    day,
    double,
    instant,
    list_of,
    same,
    struct,
    text,
)


def city(row):
    return None if row["place"] is None else row["place"]["city"]


STREAMS = [
    Stream(
        "events",
        columns(
            seen_required=instant,
            flag=boolean,
            big=bigint,
            ratio=double,
            day=day,
            tags=list_of(text),
            place=struct(city=text, lat=double),
        ),
        event_time="seen",
    )
]
TABLES = {
    "all_columns": Plain("events", same("seen", "flag", "big", "ratio", "day", "tags", "place")),
    "cities": Grouped(
        "events",
        same("city", "events", "most_tags", "ratio"),
        {
            "events": count_rows(),
            "most_tags": aggregate("max", lambda row: None if row["tags"] is None else len(row["tags"])),
            "ratio": aggregate("max", column("ratio")),
        },
        keys={"city": city},
    ),
}
