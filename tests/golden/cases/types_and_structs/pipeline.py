"""Every kind of column, NULL in each, and a wrong value in each."""

import headrace as hr

pipeline = hr.Pipeline("types_and_structs")

pipeline.stream(
    "events",
    schema="seen TIMESTAMP NOT NULL, flag BOOLEAN, big BIGINT, ratio DOUBLE, day DATE, tags "
    "VARCHAR[], place STRUCT(city VARCHAR, lat DOUBLE)",
    event_time="seen",
)
pipeline.table("all_columns", "SELECT seen, flag, big, ratio, day, tags, place FROM events")
pipeline.table(
    "cities",
    """
    SELECT place.city AS city, count(*) AS events, max(len(tags)) AS most_tags, max(ratio) AS ratio
    FROM events
    GROUP BY place.city
    """,
)
