"""A window of 5 minutes every minute: every record is in five of them."""

import headrace as hr

pipeline = hr.Pipeline("sliding_windows")

pipeline.stream(
    "events",
    schema="seen TIMESTAMP NOT NULL, user VARCHAR, n INT",
    event_time="seen",
    allowed_lateness="5 minutes",
)
pipeline.table(
    "activity",
    """
    SELECT window_start, window_end, "user", count(*) AS events, sum(n) AS total, max(seen) AS last_event
    FROM events GROUP BY window(seen, '5 minutes', '1 minute'), "user"
    """,
)
pipeline.table(
    "uneven",
    """
    SELECT window_start, window_end, sum(n) AS total
    FROM events
    GROUP BY window(seen, '5 minutes', '2 minutes')
    """,
)
