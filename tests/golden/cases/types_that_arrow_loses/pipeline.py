"""UUID, JSON and HUGEINT: a query finds them as they were declared, and not as the texts they travel as."""

import headrace as hr

pipeline = hr.Pipeline("types_that_arrow_loses")

pipeline.stream(
    "events",
    schema="seen TIMESTAMP NOT NULL, id UUID, huge HUGEINT, document JSON, counts INTEGER[]",
    event_time="seen",
    derive={"total": "list_sum(counts)"},
)
pipeline.table(
    "found", "SELECT count(*) AS events FROM events WHERE id = 'A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11'"
)
pipeline.table(
    "halves",
    """
    SELECT CAST(huge // 2 AS VARCHAR) AS half, CAST(max(total // 2) AS BIGINT) AS total, count(*) AS events
    FROM events
    WHERE huge & 1 = 1
    GROUP BY huge // 2
    """,
)
pipeline.table(
    "documents",
    """
    SELECT CAST(to_json(document) AS VARCHAR) AS same, CAST(json_object('in', document) AS VARCHAR) AS inside
    FROM events
    """,
)
pipeline.table(
    "people",
    """
    SELECT CAST(id AS VARCHAR) AS id, CAST(max(huge) // 2 AS VARCHAR) AS half,
           count(DISTINCT huge) AS different
    FROM events
    GROUP BY id, session_window(seen, '10 minutes')
    """,
)
