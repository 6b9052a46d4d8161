"""One of four partitions is 10 minutes behind the others: what is late there is told by its own time."""

import headrace as hr

pipeline = hr.Pipeline("one_of_four_lags")

pipeline.stream(
    "events",
    schema="seen TIMESTAMP NOT NULL, user VARCHAR, n INT",
    event_time="seen",
    allowed_lateness="2 minutes",
)
pipeline.table(
    "minutes",
    """
    SELECT window_start, count(*) AS events, sum(n) AS total
    FROM events
    GROUP BY window(seen, '1 minute')
    """,
)
pipeline.table(
    "visits",
    """
    SELECT "user", window_start, window_end, sum(n) AS total
    FROM events
    GROUP BY session_window(seen, '3 minutes'), "user"
    """,
)
pipeline.table("latest", 'SELECT "user", seen, n FROM events', key="user")
