"""Totals by user for ever; a NULL user is a group, a group without values has a NULL sum."""

import headrace as hr

pipeline = hr.Pipeline("keyed_totals")

pipeline.stream("events", schema="seen TIMESTAMP NOT NULL, user VARCHAR, n INT", event_time="seen")
pipeline.table(
    "totals",
    """
    SELECT "user", min(seen) AS first_seen, max(seen) AS last_seen, count(*) AS events, sum(n) AS total,
           avg(n) AS average,
           sum(n) * 2 + count(*) AS score
    FROM events GROUP BY "user"
    """,
)
