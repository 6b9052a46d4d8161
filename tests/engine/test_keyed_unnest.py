"""A table with key= over UNNEST: which of one record's rows stays is decided, however they are sorted."""

from itertools import permutations
from typing import Any

import headrace as hr
from headrace.testing import PipelineTest

SEEN = "2026-03-01T12:00:00Z"


def pipeline() -> hr.Pipeline:
    made = hr.Pipeline("orders")
    made.stream(
        "events",
        schema="seen TIMESTAMP NOT NULL, items STRUCT(p VARCHAR, q INT, tags VARCHAR[])[]",
        event_time="seen",
    )
    query = "SELECT item.p AS p, item.q AS q, item.tags AS tags FROM events, UNNEST(items) AS u(item)"
    made.table("last_item", query, key="p")
    return made


def items(name: str) -> list[dict[str, Any]]:
    return [
        {"p": name, "q": q, "tags": tags}
        for q, tags in ((1, ["z"]), (2, ["a"]), (3, None), (3, ["a", None]), (3, ["a"]), (None, ["z"]))
    ]


def test_of_the_rows_of_one_record_the_greatest_stays() -> None:
    records = [
        {"seen": SEEN, "items": [items(f"p{number}")[place] for place in order]}
        for number, order in enumerate(permutations(range(6)))
    ]
    for rows_max in (1000, 7):
        with PipelineTest(pipeline(), start=SEEN) as test:
            test.send("events", records)
            while test.step(rows_max=rows_max):
                pass
            rows = test.table("last_item")
        assert len(rows) == len(records)
        assert {(row["q"], tuple(row["tags"])) for row in rows} == {(3, ("a", None))}


def test_a_later_record_wins_over_greater_rows_of_an_earlier_one() -> None:
    with PipelineTest(pipeline(), start=SEEN) as test:
        test.send("events", [{"seen": SEEN, "items": items("p")}])
        test.run()
        test.send("events", [{"seen": SEEN, "items": items("p")[:2]}])
        test.run()
        assert [row["q"] for row in test.table("last_item")] == [2]
