"""Exactly as late, and exactly as early, as allowed is accepted; one microsecond more is not."""

import headrace as hr

pipeline = hr.Pipeline("lateness_and_tolerance_edges")

pipeline.stream(
    "events", schema="seen TIMESTAMP NOT NULL, n INT", event_time="seen", allowed_lateness="5 minutes"
)
pipeline.table("kept", "SELECT seen, n FROM events")
