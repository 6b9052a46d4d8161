"""Sessions of everybody together, with length and HAVING in the result part."""

import headrace as hr

pipeline = hr.Pipeline("sessions_without_key")

pipeline.stream(
    "events", schema="at TIMESTAMP NOT NULL, bought BOOLEAN", event_time="at", allowed_lateness="3 hours"
)
pipeline.table(
    "visits",
    """
    SELECT window_start AS began, max(at) AS ended, epoch(max(at)) - epoch(min(at)) AS seconds,
           bool_or(bought) AS converted
    FROM events GROUP BY session_window(at, '30 minutes') HAVING count(*) > 1
    """,
)
