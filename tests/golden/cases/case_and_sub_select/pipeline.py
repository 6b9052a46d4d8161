"""CASE as a grouping key, in an argument and over aggregates; a sub-select in FROM."""

import headrace as hr

pipeline = hr.Pipeline("case_and_sub_select")

pipeline.stream("events", schema="seen TIMESTAMP NOT NULL, user VARCHAR, n INT", event_time="seen")
pipeline.table(
    "sizes",
    """
    SELECT CASE WHEN n < 5 THEN 'small' WHEN n < 50 THEN 'middle' WHEN n >= 50 THEN 'large' END AS size,
           count(*) AS events,
           sum(CASE WHEN "user" = 'a' THEN n ELSE 0 END) AS of_a,
           CASE WHEN count(*) > 1 THEN 'several' ELSE 'one' END AS word
    FROM events GROUP BY 1
    """,
)
pipeline.table(
    "halves",
    """
    SELECT big, count(*) AS events, sum(half) AS halves
    FROM (SELECT n > 5 AS big, n // 2 AS half FROM events WHERE n > 0)
    GROUP BY big
    """,
)
