"""Events exactly on a window's start, one microsecond before it and one after it."""

import headrace as hr

pipeline = hr.Pipeline("window_edges")

pipeline.stream(
    "events", schema="seen TIMESTAMP NOT NULL, n INT", event_time="seen", allowed_lateness="10 minutes"
)
pipeline.table(
    "five",
    """
    SELECT window_start, window_end, count(*) AS events, sum(n) AS total
    FROM events
    GROUP BY window(seen, '5 minutes')
    """,
)
