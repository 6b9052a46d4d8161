"""Identical copies in several partitions count once; after the lateness a copy is late, at another
event time it is another record.
"""

import headrace as hr

pipeline = hr.Pipeline("duplicates_across_partitions")

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
