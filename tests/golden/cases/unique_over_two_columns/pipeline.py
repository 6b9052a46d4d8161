"""A unique key of two columns; a NULL in either makes the record unlike every other."""

import headrace as hr

pipeline = hr.Pipeline("unique_over_two_columns")

pipeline.stream(
    "events",
    schema="user VARCHAR, item VARCHAR, seen TIMESTAMP NOT NULL",
    event_time="seen",
    allowed_lateness="5 minutes",
    unique=("user", "item"),
)
pipeline.table(
    "pairs",
    """
    SELECT "user", item, count(*) AS events
    FROM events
    GROUP BY "user", item
    """,
)
