"""An expression that fails on a row sets the row aside for that table only: failed, not filtered, and
no NULL.
"""

import headrace as hr

pipeline = hr.Pipeline("rows_that_fail_in_one_table")

pipeline.stream("events", schema="seen TIMESTAMP NOT NULL, number VARCHAR", event_time="seen")
pipeline.table(
    "totals",
    """
    SELECT count(*) AS events, sum(CAST(number AS INTEGER)) AS total
    FROM events
    """,
)
pipeline.table("odd", "SELECT number FROM events WHERE CAST(number AS INTEGER) % 2 = 1")
pipeline.table("all_of_them", "SELECT count(*) AS events, count(number) AS numbers FROM events")
