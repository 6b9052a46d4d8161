"""A new store over a log whose beginning retention has taken: what it shows, and what it says it lacks."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import headrace as hr
from headrace.log import EmbeddedLog, Log, open_embedded_log
from headrace.testing import OpenLog, PipelineTest, VirtualClock

START = datetime(2026, 1, 1, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
SECOND = timedelta(seconds=1)
FIRST = START + 19 * MINUTE + 30 * SECOND
"""The record time of the first record that is left."""


def counted() -> hr.Pipeline:
    pipeline = hr.Pipeline("cut")
    pipeline.stream(
        "events",
        schema="seen TIMESTAMP NOT NULL",
        event_time="seen",
        allowed_lateness="5 minutes",
        future_tolerance="1 minute",
    )
    windows = {"tens": "window(seen, '10 minutes')", "visits": "session_window(seen, '5 minutes')"}
    for name, window in windows.items():
        pipeline.table(name, f"SELECT window_start, count(*) AS n FROM events GROUP BY {window}")
    pipeline.table("total", "SELECT count(*) AS n FROM events")
    return pipeline


def on_one_log(folder: Path) -> OpenLog:
    def opened(stream: str, partitions: int, clock: VirtualClock) -> Log:
        return open_embedded_log(
            folder / "log.db",
            stream,
            partitions=partitions,
            clock=clock,
            durable=False,
            retention_bytes=1,
        )

    return opened


def shown(test: PipelineTest, table: str) -> dict[int, int]:
    """Return the counts of a windowed table by the minute at which a window begins."""
    return {int((row["window_start"] - START) / MINUTE): row["n"] for row in test.table(table)}


def test_a_new_store_shows_whole_windows_only_and_says_since_when_the_rest_is_complete(
    tmp_path: Path,
) -> None:
    open_log = on_one_log(tmp_path)
    with PipelineTest(counted(), start=START, folder=tmp_path / "old", open_log=open_log) as old:
        for minute in range(20):
            old.send("events", {"seen": START + minute * MINUTE}, at=START + minute * MINUTE)
        # Within the tolerance it is ahead of its record time, so it is in a window that begins behind FIRST.
        ahead = START + 20 * MINUTE + 10 * SECOND
        old.send("events", {"seen": ahead}, at=ahead - 50 * SECOND)
        old.run()
        log = old.log("events")
        assert isinstance(log, EmbeddedLog)
        log.retain()
        old.send("events", {"seen": FIRST}, at=FIRST)
        for minute in range(20, 60):
            old.send("events", {"seen": START + minute * MINUTE}, at=START + minute * MINUTE)
        old.run()
        assert shown(old, "tens") == {0: 10, 10: 11, 20: 11, 30: 10, 40: 10, 50: 10}
    with PipelineTest(
        counted(), start=START + 60 * MINUTE, folder=tmp_path / "new", open_log=open_log
    ) as new:
        new.run()
        (lane,) = [line for line in new.ledger().lanes if line.lane == "main"]
        assert (lane.start, lane.end, lane.outcomes) == (21, 62, {"accepted": 41})
        assert new.ledger().balanced
        assert shown(new, "tens") == {30: 10, 40: 10, 50: 10}
        assert shown(new, "visits") == {21: 39}
        assert new.table("total") == [{"n": 41}]
        since = {table.table: table.partial_since for table in new.store.status().tables}
        assert since == {"tens": None, "visits": FIRST + MINUTE + timedelta(microseconds=1), "total": FIRST}
