"""A tumbling window by type, with a record out of order and an empty window in between."""

import headrace as hr

pipeline = hr.Pipeline("tumbling_counts_and_sums")

pipeline.stream(
    "events",
    schema="seen TIMESTAMP NOT NULL, type VARCHAR NOT NULL, amount DECIMAL(12,2)",
    event_time="seen",
    allowed_lateness="15 minutes",
)
pipeline.table(
    "by_type",
    """
    SELECT window_start, window_end, type, count(*) AS events, count(amount) AS amounts, sum(amount) AS
           total,
           min(amount) AS least, max(amount) AS most
    FROM events GROUP BY window(seen, '10 minutes'), type
    """,
)
