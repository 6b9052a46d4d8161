"""Records that retention took before they were read are counted, and the ledger still balances."""

import sqlite3
from pathlib import Path

import pytest

import headrace as hr
from headrace.engine.local import EngineSettings
from headrace.errors import RefusedError
from headrace.log import EmbeddedLog, PartitionRange
from headrace.testing import PipelineTest

NOON = "2026-01-01T12:00:00"


def cut_to(path: Path, offset: int) -> None:
    with sqlite3.connect(path) as log:
        (stream,) = log.execute("SELECT id FROM streams WHERE lane = ''").fetchone()
        log.execute("DELETE FROM batches WHERE stream = ? AND first_offset < ?", (stream, offset))
        log.execute("UPDATE partitions SET start_offset = ? WHERE stream = ?", (offset, stream))
    log.close()


def test_a_run_stops_before_records_that_are_lost_and_keeps_what_it_has(tmp_path: Path) -> None:
    pipeline = hr.Pipeline("lost")
    pipeline.stream("events", schema="id VARCHAR NOT NULL, seen TIMESTAMP NOT NULL", event_time="seen")
    pipeline.table("total", "SELECT count(*) AS n FROM events")
    with PipelineTest(pipeline, start=NOON, folder=tmp_path) as test:
        for number in range(10):
            test.send("events", {"id": str(number), "seen": NOON})
            if number == 3:
                test.run()
        cut_to(tmp_path / "log.db", 7)
        for _ in range(2):
            with pytest.raises(RefusedError, match="records 4 to 6 are gone") as refused:
                test.run()
            assert "engine_settings.on_data_loss" in refused.value.fix
            test.restart()
        assert test.table("total") == [{"n": 4}]
        assert test.ledger().balanced


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
        cut_to(tmp_path / "log.db", 7)
        test.run()
        main = next(line for line in test.ledger().lanes if line.lane == "main")
        assert (main.lost, main.gaps) == (3, 0)
        assert test.ledger().balanced
        assert test.table("total") == [{"n": 7}]


def test_retention_that_moves_again_while_a_run_steps_over_what_is_lost_does_not_stop_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline = hr.Pipeline("lost")
    pipeline.stream("events", schema="id VARCHAR NOT NULL, seen TIMESTAMP NOT NULL", event_time="seen")
    pipeline.table("total", "SELECT count(*) AS n FROM events")
    settings = EngineSettings(on_data_loss="continue")
    with PipelineTest(pipeline, start=NOON, folder=tmp_path, settings=settings) as test:
        for number in range(10):
            test.send("events", {"id": str(number), "seen": NOON})
            if number == 3:
                test.run()
        cut_to(tmp_path / "log.db", 6)
        told = iter([8, 9])
        asked = EmbeddedLog.partitions

        def moved(log: EmbeddedLog) -> tuple[PartitionRange, ...]:
            ranges = asked(log)
            if (offset := next(told, None)) is not None:
                cut_to(tmp_path / "log.db", offset)  # between what was told and the read that follows
            return ranges

        monkeypatch.setattr(EmbeddedLog, "partitions", moved)
        test.run()
        main = next(line for line in test.ledger().lanes if line.lane == "main")
        assert (main.lost, main.gaps) == (5, 0)
        assert test.ledger().balanced
        assert test.table("total") == [{"n": 5}]
