"""HAVING is asked of the whole group: a group comes, leaves and comes back as records arrive."""

import headrace as hr

pipeline = hr.Pipeline("having_is_left_again")

pipeline.stream("events", schema="seen TIMESTAMP NOT NULL, user VARCHAR, n INT", event_time="seen")
pipeline.table(
    "rich",
    """
    SELECT "user", sum(n) AS balance
    FROM events
    GROUP BY "user"
    HAVING sum(n) > 5
    """,
)
pipeline.table(
    "windows",
    """
    SELECT window_start, sum(n) AS balance
    FROM events
    GROUP BY window(seen, '2 minutes')
    HAVING count(*) = 2 AND sum(n) > 0
    """,
)
