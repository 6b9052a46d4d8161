"""Sums of whole numbers hold 38 digits; a number that does not fit its column, or has a fraction, is
malformed.
"""

import headrace as hr

pipeline = hr.Pipeline("sums_beyond_64_bits")

pipeline.stream("events", schema="seen TIMESTAMP NOT NULL, n BIGINT", event_time="seen")
pipeline.table("total", "SELECT sum(n) AS total, min(n) AS least, max(n) AS most FROM events")
