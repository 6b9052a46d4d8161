"""Two streams with tables of their own, and a view over both."""

import headrace as hr

pipeline = hr.Pipeline("two_streams")

pipeline.stream("orders", schema="at TIMESTAMP NOT NULL, n INT", event_time="at")
pipeline.stream(
    "returns", schema="n INT, at TIMESTAMP NOT NULL", event_time="at", allowed_lateness="10 minutes"
)
pipeline.table(
    "ordered",
    """
    SELECT window_start, sum(n) AS n
    FROM orders
    GROUP BY window(at, '2 minutes')
    """,
)
pipeline.table(
    "returned",
    """
    SELECT window_start, sum(n) AS n
    FROM returns
    GROUP BY window(at, '2 minutes')
    """,
)
pipeline.table(
    "net",
    """
    SELECT window_start, o.n - r.n AS n
    FROM ordered o JOIN returned r USING (window_start)
    """,
)
