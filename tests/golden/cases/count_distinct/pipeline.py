"""Exact distinct counts per window and over all, of texts, of decimals and of times; NULL is not
counted.
"""

import headrace as hr

pipeline = hr.Pipeline("count_distinct")

pipeline.stream(
    "events",
    schema="seen TIMESTAMP NOT NULL, type VARCHAR NOT NULL, user VARCHAR, amount DECIMAL(8,2)",
    event_time="seen",
    allowed_lateness="5 minutes",
)
pipeline.table(
    "minutes",
    """
    SELECT window_start, type, count(*) AS events, count(DISTINCT "user") AS users, count(DISTINCT
           amount) AS amounts
    FROM events GROUP BY window(seen, '1 minute'), type
    """,
)
pipeline.table(
    "overall",
    """
    SELECT count(DISTINCT "user") AS users, count(DISTINCT seen) AS times
    FROM events
    """,
)
pipeline.table(
    "visits",
    """
    SELECT "user", window_start, count(DISTINCT type) AS types
    FROM events
    GROUP BY session_window(seen, '45 seconds'), "user"
    """,
)
