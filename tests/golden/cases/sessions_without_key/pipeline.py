"""Sessions of everybody together, with length and HAVING in the result part."""

import headrace as hr

pipeline = hr.Pipeline("sessions_without_key")

pipeline.stream(
    "events", schema="seen TIMESTAMP NOT NULL, bought BOOLEAN", event_time="seen", allowed_lateness="3 hours"
)
pipeline.table(
    "visits",
    """
    SELECT window_start AS began, max(seen) AS ended, epoch(max(seen)) - epoch(min(seen)) AS seconds,
           bool_or(bought) AS converted
    FROM events GROUP BY session_window(seen, '30 minutes') HAVING count(*) > 1
    """,
)
