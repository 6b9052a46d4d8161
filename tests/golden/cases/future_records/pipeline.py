"""A tolerance of half an hour; a record from the far future must not close anything for the others."""

import headrace as hr

pipeline = hr.Pipeline("future_records")

pipeline.stream(
    "events",
    schema="seen TIMESTAMP NOT NULL, n INT",
    event_time="seen",
    allowed_lateness="1 minute",
    future_tolerance="30 minutes",
)
pipeline.table(
    "quarters",
    """
    SELECT window_start, count(*) AS events, sum(n) AS total
    FROM events
    GROUP BY window(seen, '15 minutes')
    """,
)
