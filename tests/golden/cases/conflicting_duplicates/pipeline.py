"""Copies of other content under one key: the first of the partition counts, the others are duplicates."""

import headrace as hr

pipeline = hr.Pipeline("conflicting_duplicates")

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
