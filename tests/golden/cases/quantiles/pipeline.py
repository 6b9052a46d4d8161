"""Exact quantiles: between two values, or one of the values; NULL is skipped."""

import headrace as hr

pipeline = hr.Pipeline("quantiles")

pipeline.stream(
    "events",
    schema="seen TIMESTAMP NOT NULL, service VARCHAR, ms INT",
    event_time="seen",
    allowed_lateness="10 minutes",
)
pipeline.table(
    "latency",
    """
    SELECT window_start, service, quantile_cont(ms, 0.5) AS p50, quantile_cont(ms, 0.95) AS p95,
           quantile_disc(ms, 0.5) AS d50,
           quantile_disc(ms, 0.99) AS d99, median(ms) AS middle
    FROM events GROUP BY window(seen, '1 minute'), service
    """,
)
