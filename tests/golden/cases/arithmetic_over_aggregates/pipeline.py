"""Arithmetic, coalesce and nullif over aggregates in the result part; one group divides by zero and
gets NULL.
"""

import headrace as hr

pipeline = hr.Pipeline("arithmetic_over_aggregates")

pipeline.stream("events", schema="seen TIMESTAMP NOT NULL, g VARCHAR, a INT, b INT", event_time="seen")
pipeline.table(
    "rates",
    """
    SELECT g, sum(a) / nullif(sum(b), 0) AS rate, coalesce(sum(a), -1) AS total, max(a) - min(a) AS width,
           count(*) * 100 / (count(a) + 1) AS share, g || ':' || count(*) AS label
    FROM events GROUP BY g
    """,
)
