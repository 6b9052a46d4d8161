"""NULL in keys is one group; NULL arguments are skipped; a group of NULLs has NULL results and zero
counts.
"""

import headrace as hr

pipeline = hr.Pipeline("null_keys_and_arguments")

pipeline.stream(
    "events", schema="seen TIMESTAMP NOT NULL, user VARCHAR, n INT, ok BOOLEAN", event_time="seen"
)
pipeline.table(
    "groups",
    """
    SELECT window_start, "user", ok, count(*) AS events, count(n) AS numbers,
           count(DISTINCT n) AS different, sum(n) AS total,
           avg(n) AS average, min(n) AS least,
           bool_and(ok) AS every_ok, bool_or(n > 3) AS any_big,
           max_by(n, seen) AS last_n,
           mode(n) AS usual, coalesce(sum(n), 0) AS total_or_zero
    FROM events GROUP BY window(seen, '5 minutes'), "user", ok
    """,
)
