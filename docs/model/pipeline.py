"""Payments, scored by a model while they come."""

from scoring import trouble

import headrace as hr

pipeline = hr.Pipeline("scores")

pipeline.function("trouble", trouble, arguments=["DOUBLE", "DOUBLE", "DOUBLE"], returns="DOUBLE")

pipeline.stream(
    "events",
    schema="""
        event_id     VARCHAR NOT NULL,
        kind         VARCHAR NOT NULL,
        timestamp    TIMESTAMP NOT NULL,
        account      VARCHAR,
        amount       DECIMAL(12,2),
        latency_ms   INTEGER,
        status       VARCHAR
    """,
    event_time="timestamp",
    allowed_lateness="1 minute",
    unique="event_id",
    derive={"score": "trouble(amount, latency_ms, CASE WHEN status = 'failed' THEN 1 ELSE 0 END)"},
)

pipeline.table(
    "scored",
    "SELECT event_id, account, timestamp, score FROM events WHERE kind = 'transaction'",
    keep="1 day",
)

pipeline.table(
    "trouble_by_minute",
    """
    SELECT window_start, window_end,
           count(*)                               AS payments,
           count(*) FILTER (WHERE score > 0.9)    AS suspicious,
           max(score)                             AS highest
    FROM events
    WHERE kind = 'transaction'
    GROUP BY window(timestamp, '1 minute')
    """,
)

pipeline.alert(
    "trouble",
    """
    SELECT coalesce(sum(suspicious) > 0.5 * sum(payments), false)
    FROM trouble_by_minute WHERE window_start > now() - INTERVAL 5 MINUTES
    """,
    hold="1 minute",
    summary="Half of the payments look like those of an incident: see the table trouble_by_minute.",
)
