"""Sessions of one batch."""

from pathlib import Path

import headrace as hr
from headrace.testing import PipelineTest


def test_the_two_zeros_of_a_double_are_one_key_and_their_sessions_stay_apart(tmp_path: Path) -> None:
    pipeline = hr.Pipeline("zeros")
    pipeline.stream(
        "events",
        schema="seen TIMESTAMP NOT NULL, place DOUBLE",
        event_time="seen",
        allowed_lateness="1 day",
    )
    pipeline.table(
        "visits",
        "SELECT place, window_start, count(*) AS n FROM events "
        "GROUP BY session_window(seen, '10 minutes'), place",
    )
    with PipelineTest(pipeline, start="2026-01-01T06:00:00", folder=tmp_path) as test:
        test.send("events", {"seen": "2026-01-01T00:00:00", "place": 0.0})
        test.send("events", {"seen": "2026-01-01T05:00:00", "place": -0.0})
        test.run()
        assert sorted(row["window_start"].hour for row in test.table("visits")) == [0, 5]
