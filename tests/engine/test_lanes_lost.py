"""Records that retention took before they were read are counted, and the ledger still balances."""

import sqlite3
from pathlib import Path

import headrace as hr
from headrace.engine.local import EngineSettings
from headrace.testing import PipelineTest

NOON = "2026-01-01T12:00:00"


def test_records_lost_to_retention_are_counted_when_the_run_may_go_on(tmp_path: Path) -> None:
    pipeline = hr.Pipeline("lost")
    pipeline.stream("events", schema="id VARCHAR NOT NULL, seen TIMESTAMP NOT NULL", event_time="seen")
    pipeline.table("total", "SELECT count(*) AS n FROM events")
    settings = EngineSettings(on_data_loss="continue")
    with PipelineTest(pipeline, start=NOON, folder=tmp_path, settings=settings) as test:
        for number in range(10):
            test.send("events", {"id": str(number), "seen": NOON})
            if number == 3:
                test.run()
        # Retention never passes a reader that is known, so this is what a foreign hand does to the file.
        with sqlite3.connect(tmp_path / "log.db") as log:
            (stream,) = log.execute("SELECT id FROM streams WHERE lane = ''").fetchone()
            log.execute("DELETE FROM batches WHERE stream = ? AND first_offset < 7", (stream,))
            log.execute("UPDATE partitions SET start_offset = 7 WHERE stream = ?", (stream,))
        log.close()
        test.run()
        main = next(line for line in test.ledger().lanes if line.lane == "main")
        assert (main.lost, main.gaps) == (3, 0)
        assert test.ledger().balanced
        assert test.table("total") == [{"n": 7}]
