"""Poison among good records: each gets its outcome, and the good ones beside it are unharmed."""

import headrace as hr

pipeline = hr.Pipeline("poison_bytes")

pipeline.stream(
    "events",
    schema="seen TIMESTAMP NOT NULL, name VARCHAR, n INT",
    event_time="seen",
    allowed_lateness="5 minutes",
)
pipeline.table(
    "names",
    """
    SELECT name, count(*) AS events, sum(n) AS total
    FROM events
    GROUP BY name
    """,
)
