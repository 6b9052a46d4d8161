"""Sessions whose end is the next one's start are one; a microsecond more and they are two."""

import headrace as hr

pipeline = hr.Pipeline("sessions_touch")

pipeline.stream(
    "events",
    schema="seen TIMESTAMP NOT NULL, user VARCHAR, n INT",
    event_time="seen",
    allowed_lateness="60 minutes",
)
pipeline.table(
    "sessions",
    """
    SELECT "user", window_start, window_end, count(*) AS events, sum(n) AS total, min(seen) AS first_event
    FROM events GROUP BY session_window(seen, '10 minutes'), "user"
    """,
)
