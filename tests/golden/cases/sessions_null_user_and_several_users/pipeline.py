"""NULL is a user like any other in a session's key, and does not touch the others."""

import headrace as hr

pipeline = hr.Pipeline("sessions_null_user_and_several_users")

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
