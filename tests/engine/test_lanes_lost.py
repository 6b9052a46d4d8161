"""Records that retention took before they were read are counted, and the ledger still balances."""

import sqlite3
from datetime import UTC, datetime, timedelta
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


def at(minute: int) -> datetime:
    return datetime(2026, 1, 1, 12, tzinfo=UTC) + timedelta(minutes=minute)


def two_streams() -> hr.Pipeline:
    pipeline = hr.Pipeline("lost")
    for name in ("events", "others"):
        pipeline.stream(name, schema="id VARCHAR NOT NULL, seen TIMESTAMP NOT NULL", event_time="seen")
    pipeline.table(
        "tens", "SELECT window_start, count(*) AS n FROM events GROUP BY window(seen, '10 minutes')"
    )
    pipeline.table("total", "SELECT count(*) AS n FROM events")
    pipeline.table("other", "SELECT count(*) AS n FROM others")
    return pipeline


def lost_before(test: PipelineTest) -> dict[str, datetime | None]:
    return {table.table: table.lost_before for table in test.store.status().tables}


def send(test: PipelineTest, *minutes: int) -> None:
    for minute in minutes:
        test.send("events", {"id": str(minute), "seen": at(minute)}, at=at(minute))


def test_tables_of_a_stream_that_lost_records_tell_until_when_and_no_other_ones(tmp_path: Path) -> None:
    settings = EngineSettings(on_data_loss="continue")
    with PipelineTest(two_streams(), start=NOON, folder=tmp_path, settings=settings) as test:
        send(test, 0, 1)
        test.send("others", {"id": "0", "seen": at(1)})
        test.run()
        assert lost_before(test) == {"tens": None, "total": None, "other": None}
        send(test, 2, 3, 4, 5)
        cut_to(tmp_path / "log.db", 4)
        test.run()
        assert lost_before(test) == {"tens": at(4), "total": at(4), "other": None}
        assert test.table("total") == [{"n": 4}]
        test.restart()
        send(test, 6)
        test.run()
        assert lost_before(test) == {"tens": at(4), "total": at(4), "other": None}


def test_where_nothing_is_left_behind_lost_records_they_came_before_the_logs_time(tmp_path: Path) -> None:
    settings = EngineSettings(on_data_loss="continue")
    with PipelineTest(two_streams(), start=NOON, folder=tmp_path, settings=settings) as test:
        send(test, 0)
        test.run()
        send(test, 1, 2)
        cut_to(tmp_path / "log.db", 3)
        test.run()
        assert lost_before(test) == {"tens": at(2), "total": at(2), "other": None}
        assert test.table("total") == [{"n": 1}]
        send(test, 3, 4)
        cut_to(tmp_path / "log.db", 4)
        test.run()
        assert lost_before(test)["total"] == at(4), "the last loss counts"


def test_a_crash_while_lost_records_are_passed_marks_the_tables_all_the_same(tmp_path: Path) -> None:
    settings = EngineSettings(on_data_loss="continue")
    with PipelineTest(two_streams(), start=NOON, folder=tmp_path, settings=settings) as test:
        send(test, 0)
        test.run()
        send(test, 1, 2)
        cut_to(tmp_path / "log.db", 2)
        test.crash_at("ledger")
        test.run()
        assert test.crashes_seen
        assert lost_before(test) == {"tens": at(2), "total": at(2), "other": None}
