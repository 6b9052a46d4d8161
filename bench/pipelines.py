"""What is measured: the same declarations for Headrace and, as SQL, for the peer."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import headrace as hr

WINDOW, COMMERCE, KEYS = "window", "commerce", "keys"
LATENESS = timedelta(minutes=5)
FILLED_LATENESS = timedelta(hours=2)  # at 1,000 events/s the 5 M events before and the measured 2 M fit in


def pipeline_of(name: str, *, filled: bool = False) -> hr.Pipeline:
    """Return one of the measured pipelines; `filled`: duplicates are looked for among millions of keys."""
    if name == COMMERCE:
        from headrace.blueprints.commerce.pipeline import pipeline

        if filled:
            pipeline.streams = tuple(
                replace(stream, allowed_lateness=FILLED_LATENESS) for stream in pipeline.streams
            )
        return pipeline
    pipeline = hr.Pipeline(name)
    columns = "timestamp TIMESTAMP NOT NULL, total_amount DECIMAL(12,2)"
    grouped = "event_type" if name == WINDOW else "user_id"
    unique = "event_id VARCHAR NOT NULL, " if filled else ""
    pipeline.stream(
        "events",
        schema=f"{unique}{grouped} VARCHAR NOT NULL, {columns}",
        event_time="timestamp",
        allowed_lateness=FILLED_LATENESS if filled else LATENESS,
        **({"unique": "event_id"} if filled else {}),
    )
    if name == WINDOW:
        query = """
            SELECT window_start, event_type, count(*) AS events, sum(total_amount) AS revenue
            FROM events GROUP BY window(timestamp, '1 minute'), event_type
        """
    else:
        query = """
            SELECT user_id, count(*) AS events, sum(total_amount) AS revenue, max(timestamp) AS last_at
            FROM events GROUP BY user_id
        """
    pipeline.table("result", query)
    return pipeline
