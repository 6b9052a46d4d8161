"""Decimals: rounded half up when read, too large is malformed, an average has four digits more, half
up.
"""

import headrace as hr

pipeline = hr.Pipeline("decimals_half_up")

pipeline.stream(
    "events",
    schema="seen TIMESTAMP NOT NULL, user VARCHAR, amount DECIMAL(12,2)",
    event_time="seen",
    allowed_lateness="5 minutes",
)
pipeline.table(
    "amounts",
    """
    SELECT "user", count(*) AS events, sum(amount) AS total, avg(amount) AS average, min(amount) AS
           least, max(amount) AS most
    FROM events GROUP BY "user"
    """,
)
