"""Class rows with a key: the greatest (event time, record time, partition, offset) wins."""

import headrace as hr

pipeline = hr.Pipeline("rows_latest_by_key")

pipeline.stream(
    "events",
    schema="user VARCHAR, seen TIMESTAMP NOT NULL, page VARCHAR",
    event_time="seen",
    allowed_lateness="1 minute",
)
pipeline.table("last_page", 'SELECT "user", seen, page FROM events', key="user")
