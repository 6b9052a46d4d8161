"""Variance and deviation keep their digits beside a large mean; one value has no sample variance."""

import headrace as hr

pipeline = hr.Pipeline("variance_of_large_numbers")

pipeline.stream("events", schema="seen TIMESTAMP NOT NULL, g VARCHAR, n BIGINT", event_time="seen")
pipeline.table(
    "spread",
    """
    SELECT g, var_samp(n) AS sample, var_pop(n) AS population, stddev_samp(n) AS deviation, stddev_pop(n)
           AS deviation_pop
    FROM events GROUP BY g
    """,
)
