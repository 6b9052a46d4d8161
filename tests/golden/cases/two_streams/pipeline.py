"""Two streams with tables of their own, and a view over both."""

import headrace as hr

pipeline = hr.Pipeline("two_streams")

pipeline.stream("orders", schema="seen TIMESTAMP NOT NULL, n INT", event_time="seen")
pipeline.stream(
    "returns", schema="n INT, seen TIMESTAMP NOT NULL", event_time="seen", allowed_lateness="10 minutes"
)
pipeline.table(
    "ordered",
    """
    SELECT window_start, sum(n) AS n
    FROM orders
    GROUP BY window(seen, '2 minutes')
    """,
)
pipeline.table(
    "returned",
    """
    SELECT window_start, sum(n) AS n
    FROM returns
    GROUP BY window(seen, '2 minutes')
    """,
)
pipeline.table(
    "net",
    """
    SELECT window_start, o.n - r.n AS n
    FROM ordered o JOIN returned r USING (window_start)
    """,
)
