"""Both nights on which Europe's clocks change: offsets in texts, texts without a zone are UTC, windows
of one hour and one day.
"""

import headrace as hr

pipeline = hr.Pipeline("daylight_saving_nights")

pipeline.stream("events", schema="seen TIMESTAMP NOT NULL", event_time="seen", allowed_lateness="5 minutes")
pipeline.table(
    "hours",
    """
    SELECT window_start, window_end, count(*) AS events, min(seen) AS first_event
    FROM events
    GROUP BY window(seen, '1 hour')
    """,
)
pipeline.table(
    "days",
    """
    SELECT window_start, window_end, count(*) AS events
    FROM events
    GROUP BY window(seen, '1 day')
    """,
)
pipeline.table(
    "by_day",
    """
    SELECT CAST(seen AS DATE) AS day, hour(seen) AS hour, count(*) AS events
    FROM events
    GROUP BY CAST(seen AS DATE), hour(seen)
    """,
)
