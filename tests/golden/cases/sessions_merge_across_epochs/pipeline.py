"""Three sessions of one user become one when the records between them arrive; one begins earlier than
it did.
"""

import headrace as hr

pipeline = hr.Pipeline("sessions_merge_across_epochs")

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
