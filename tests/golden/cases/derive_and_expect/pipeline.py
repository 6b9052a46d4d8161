"""Derived columns that fail, expectations that are false or NULL, several of them at once, and one
that only warns.
"""

import headrace as hr

pipeline = hr.Pipeline("derive_and_expect")

pipeline.stream(
    "events",
    schema="seen TIMESTAMP NOT NULL, device VARCHAR, number VARCHAR, weight INT",
    event_time="seen",
    derive={
        "is_mobile": "device = 'mobile'",
        "number_read": "CAST(number AS INTEGER)",
        "twice": "number_read * 2",
    },
    expect={
        "known_device": "device IN ('mobile', 'desktop')",
        "small": "number_read IS NULL OR number_read < 10",
        "weighs": hr.Expect("weight > 0", on_violation="warn"),
    },
)
pipeline.table(
    "devices",
    """
    SELECT is_mobile, count(*) AS events, sum(twice) AS doubled
    FROM events
    GROUP BY is_mobile
    """,
)
