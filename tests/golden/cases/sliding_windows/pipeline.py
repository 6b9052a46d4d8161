"""A window of 5 minutes every minute: every record is in five of them."""

import headrace as hr

pipeline = hr.Pipeline("sliding_windows")

pipeline.stream(
    "events",
    schema="at TIMESTAMP NOT NULL, user VARCHAR, n INT",
    event_time="at",
    allowed_lateness="5 minutes",
)
pipeline.table(
    "activity",
    """
    SELECT window_start, window_end, "user", count(*) AS events, sum(n) AS total, max(at) AS last_event
    FROM events GROUP BY window(at, '5 minutes', '1 minute'), "user"
    """,
)
pipeline.table(
    "uneven",
    """
    SELECT window_start, window_end, sum(n) AS total
    FROM events
    GROUP BY window(at, '5 minutes', '2 minutes')
    """,
)
