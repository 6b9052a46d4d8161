"""Class rows: a filter, computed columns, every accepted record that the filter keeps."""

import headrace as hr

pipeline = hr.Pipeline("rows_plain")

pipeline.stream(
    "events", schema="id VARCHAR NOT NULL, seen TIMESTAMP NOT NULL, amount INT", event_time="seen"
)
pipeline.table(
    "big",
    """
    SELECT id, seen, amount * 2 AS twice, upper(id) AS loud
    FROM events WHERE amount >= 5
    """,
)
