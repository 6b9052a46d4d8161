import json

from oracle_words import (
    Grouped,
    Plain,
    Stream,
    Window,
    aggregate,
    column,
    columns,
    count_rows,
    instant,
    integer,
    list_of,
    minutes,
    same,
    text,
)

ID = "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"


def uuid(value):
    return text(value).lower()


def huge(value):
    return int(value.text)


def document(value):
    """Documents of this case hold texts only, and are written as `json.dumps` writes them."""
    return json.dumps(value, separators=(",", ":"))


STREAMS = [
    Stream(
        "events",
        columns(seen_required=instant, id=uuid, huge=huge, document=document, counts=list_of(integer)),
        event_time="seen",
        derive={"total": lambda row: sum(row["counts"])},
    )
]
TABLES = {
    "found": Grouped("events", same("events"), {"events": count_rows()}, where=lambda row: row["id"] == ID),
    "halves": Grouped(
        "events",
        same("half", "total", "events"),
        {"total": aggregate("max", lambda row: row["total"] // 2), "events": count_rows()},
        keys={"half": lambda row: str(row["huge"] // 2)},
        where=lambda row: row["huge"] % 2 == 1,
    ),
    "documents": Plain(
        "events", {"same": column("document"), "inside": lambda row: f'{{"in":{row["document"]}}}'}
    ),
    "people": Grouped(
        "events",
        {"id": column("id"), "half": lambda row: str(row["most"] // 2), "different": column("different")},
        {"most": aggregate("max", column("huge")), "different": aggregate("count_distinct", column("huge"))},
        keys=same("id"),
        window=Window(minutes(10), session=True),
    ),
}
