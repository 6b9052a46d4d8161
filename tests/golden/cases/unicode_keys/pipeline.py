"""Texts are compared by their code points: composed and decomposed are two keys, an escape is the same
key.
"""

import headrace as hr

pipeline = hr.Pipeline("unicode_keys")

pipeline.stream("events", schema="seen TIMESTAMP NOT NULL, name VARCHAR, n INT", event_time="seen")
pipeline.table(
    "names",
    """
    SELECT name, length(name) AS points, count(*) AS events, sum(n) AS total
    FROM events
    GROUP BY name
    """,
)
pipeline.table(
    "extremes",
    """
    SELECT min(name) AS least, max(name) AS most, count(DISTINCT name) AS names
    FROM events
    """,
)
