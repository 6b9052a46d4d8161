"""max_by and min_by skip NULL x and NULL order, ties give the least x; mode skips NULL, ties give the
least.
"""

import headrace as hr

pipeline = hr.Pipeline("ties_of_max_by_and_mode")

pipeline.stream(
    "events", schema='seen TIMESTAMP NOT NULL, "group" VARCHAR, x VARCHAR, "rank" INT', event_time="seen"
)
pipeline.table(
    "ties",
    """
    SELECT "group", max_by(x, "rank") AS last_x, min_by(x, "rank") AS first_x, max_by("rank", x) AS
           rank_of_greatest, mode(x) AS usual
    FROM events GROUP BY "group"
    """,
)
