"""Sessions whose end is the next one's start are one; a microsecond more and they are two."""

import headrace as hr

pipeline = hr.Pipeline("sessions_touch")

pipeline.stream(
    "events",
    schema="at TIMESTAMP NOT NULL, user VARCHAR, n INT",
    event_time="at",
    allowed_lateness="60 minutes",
)
pipeline.table(
    "sessions",
    """
    SELECT "user", window_start, window_end, count(*) AS events, sum(n) AS total, min(at) AS first_event
    FROM events GROUP BY session_window(at, '10 minutes'), "user"
    """,
)
