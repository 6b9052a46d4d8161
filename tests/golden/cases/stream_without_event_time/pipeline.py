"""A stream without an event time uses the record time: nothing is late, nothing is future."""

import headrace as hr

pipeline = hr.Pipeline("stream_without_event_time")

pipeline.stream("events", schema="user VARCHAR, n INT")
pipeline.table("totals", 'SELECT "user", sum(n) AS total FROM events GROUP BY "user"')
pipeline.table("last", 'SELECT "user", n FROM events', key="user")
