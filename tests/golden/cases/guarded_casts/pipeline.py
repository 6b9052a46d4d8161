"""A condition that guards another one: what cannot be cast fails only where the cast is reached."""

import headrace as hr

pipeline = hr.Pipeline("guarded_casts")

pipeline.stream("events", schema="seen TIMESTAMP NOT NULL, kind VARCHAR, number VARCHAR", event_time="seen")
pipeline.table(
    "either",
    """
    SELECT kind, count(*) AS events
    FROM events
    WHERE kind <> 'number' OR CAST(number AS INTEGER) > 3
    GROUP BY kind
    """,
)
pipeline.table(
    "large",
    """
    SELECT kind, CAST(number AS INTEGER) AS number
    FROM events
    WHERE kind = 'number' AND (number < '1' OR CAST(number AS INTEGER) > 3)
    """,
)
