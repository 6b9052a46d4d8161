"""One record at least for each outcome, and the order in which they are checked."""

import headrace as hr

pipeline = hr.Pipeline("every_outcome")

pipeline.stream(
    "events",
    schema="id VARCHAR NOT NULL, seen TIMESTAMP NOT NULL, n INT",
    event_time="seen",
    allowed_lateness="5 minutes",
    unique="id",
    expect={"positive": "n > 0"},
)
pipeline.table(
    "counts",
    """
    SELECT window_start, count(*) AS events, sum(n) AS total
    FROM events
    GROUP BY window(seen, '1 minute')
    """,
)
