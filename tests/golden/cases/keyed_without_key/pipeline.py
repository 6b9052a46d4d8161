"""No GROUP BY at all: always one row, also where nothing was kept."""

import headrace as hr

pipeline = hr.Pipeline("keyed_without_key")

pipeline.stream("events", schema="seen TIMESTAMP NOT NULL, n INT", event_time="seen")
pipeline.table(
    "everything",
    """
    SELECT count(*) AS events, count(n) AS numbers, sum(n) AS total, max(n) AS most
    FROM events
    """,
)
pipeline.table(
    "nothing",
    """
    SELECT count(*) AS events, count(DISTINCT n) AS numbers, sum(n) AS total, avg(n) AS average
    FROM events WHERE n > 100
    """,
)
