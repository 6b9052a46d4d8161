"""What parity seed 3 draws: a partition lags; merged sessions, modes of sliding windows, latest rows."""

import headrace as hr

pipeline = hr.Pipeline("parity_seed_3")

pipeline.stream(
    "events",
    schema='id VARCHAR, seen TIMESTAMP NOT NULL, "user" VARCHAR, kind VARCHAR NOT NULL, n INT, '
    "amount DECIMAL(10,2), ratio DOUBLE",
    event_time="seen",
    allowed_lateness="2 minutes",
    unique="id",
    derive={"twice": "n * 2"},
    expect={"known_kind": "kind IN ('view', 'buy', 'back')", "small": "n IS NULL OR n < 1000"},
)
pipeline.table(
    "t0",
    """
    SELECT window_start, window_end, avg(n) AS value_0 FROM events
    WHERE amount IS NOT NULL GROUP BY session_window(seen, '4 minutes')
    """,
)
pipeline.table(
    "t1",
    """
    SELECT window_start, window_end, mode(n) AS value_0, var_samp(n) AS value_1 FROM events
    GROUP BY window(seen, '3 minutes', '1 minute') HAVING sum(n) > 5
    """,
)
pipeline.table(
    "t2",
    'SELECT "user", kind, id, seen, n, amount, twice FROM events WHERE n > 2',
    key=("user", "kind"),
)
