"""A late record between two sessions would have joined them; it is late, so they stay two."""

import headrace as hr

pipeline = hr.Pipeline("sessions_late_record_would_have_merged")

pipeline.stream(
    "events",
    schema="seen TIMESTAMP NOT NULL, user VARCHAR, n INT",
    event_time="seen",
    allowed_lateness="5 minutes",
)
pipeline.table(
    "sessions",
    """
    SELECT "user", window_start, window_end, count(*) AS events, sum(n) AS total, min(seen) AS first_event
    FROM events GROUP BY session_window(seen, '10 minutes'), "user"
    """,
)
