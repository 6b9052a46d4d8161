"""Class rows: a filter, computed columns, every accepted record that the filter keeps."""

import headrace as hr

pipeline = hr.Pipeline("rows_plain")

pipeline.stream("events", schema="id VARCHAR NOT NULL, at TIMESTAMP NOT NULL, amount INT", event_time="at")
pipeline.table(
    "big",
    """
    SELECT id, at, amount * 2 AS twice, upper(id) AS loud
    FROM events WHERE amount >= 5
    """,
)
