"""NULL in the unique column is never a duplicate; an empty text is a value like any other."""

import headrace as hr

pipeline = hr.Pipeline("null_is_never_a_duplicate")

pipeline.stream(
    "events",
    schema="id VARCHAR, seen TIMESTAMP NOT NULL, n INT",
    event_time="seen",
    allowed_lateness="5 minutes",
    unique="id",
)
pipeline.table(
    "totals",
    """
    SELECT count(*) AS events, count(DISTINCT id) AS ids, sum(n) AS total
    FROM events
    """,
)
pipeline.table("kept", "SELECT id, seen, n FROM events")
