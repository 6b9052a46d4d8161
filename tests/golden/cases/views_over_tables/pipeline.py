"""Views over tables: a join of two tables, a window function over one, and a view over a view."""

import headrace as hr

pipeline = hr.Pipeline("views_over_tables")

pipeline.stream("events", schema="seen TIMESTAMP NOT NULL, type VARCHAR NOT NULL", event_time="seen")
pipeline.table(
    "views",
    """
    SELECT window_start, count(*) AS views
    FROM events WHERE type = 'view'
    GROUP BY window(seen, '10 minutes')
    """,
)
pipeline.table(
    "purchases",
    """
    SELECT window_start, count(*) AS purchases
    FROM events WHERE type = 'purchase'
    GROUP BY window(seen, '10 minutes')
    """,
)
pipeline.table(
    "funnel",
    """
    SELECT window_start, coalesce(views, 0) AS views, coalesce(purchases, 0) AS purchases
    FROM views FULL JOIN purchases USING (window_start)
    """,
)
pipeline.table(
    "running",
    """
    SELECT window_start, sum(purchases) OVER (ORDER BY window_start) AS so_far
    FROM funnel
    """,
)
