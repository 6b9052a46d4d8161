"""FILTER on aggregates: the condition must be true, NULL is not; the group exists without a match."""

import headrace as hr

pipeline = hr.Pipeline("filter_clauses")

pipeline.stream(
    "events",
    schema="seen TIMESTAMP NOT NULL, user VARCHAR NOT NULL, type VARCHAR, amount DECIMAL(8,2)",
    event_time="seen",
)
pipeline.table(
    "users",
    """
    SELECT "user", count(*) AS events, count(*) FILTER (WHERE type = 'buy') AS buys,
           count(*) FILTER (WHERE type <> 'buy') AS others,
           sum(amount) FILTER (WHERE type = 'buy') AS spent,
           count(DISTINCT amount) FILTER (WHERE type <> 'view') AS amounts,
           max_by(type, seen) FILTER (WHERE amount > 2) AS last_costly, count_if(type = 'return') AS returned
    FROM events GROUP BY "user"
    """,
)
