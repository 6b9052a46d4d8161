"""NULL is a user like any other in a session's key, and does not touch the others."""

import headrace as hr

pipeline = hr.Pipeline("sessions_null_user_and_several_users")

pipeline.stream(
    "events",
    schema="at TIMESTAMP NOT NULL, user VARCHAR, n INT",
    event_time="at",
    allowed_lateness="5 minutes",
)
pipeline.table(
    "sessions",
    """
    SELECT "user", window_start, window_end, count(*) AS events, sum(n) AS total, min(at) AS first_event
    FROM events GROUP BY session_window(at, '10 minutes'), "user"
    """,
)
