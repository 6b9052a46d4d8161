"""Windows of 7 minutes and of 7 days start at 1970-01-01 UTC, also before it."""

import headrace as hr

pipeline = hr.Pipeline("windows_count_from_1970")

pipeline.stream("events", schema="seen TIMESTAMP NOT NULL", event_time="seen")
pipeline.table(
    "minutes",
    """
    SELECT window_start, window_end, count(*) AS events
    FROM events
    GROUP BY window(seen, '7 minutes')
    """,
)
pipeline.table(
    "weeks",
    """
    SELECT window_start, window_end, count(*) AS events
    FROM events
    GROUP BY window(seen, '7 days')
    """,
)
