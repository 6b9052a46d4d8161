"""A run that ends when it has caught up leaves no lane unread."""

import threading

import headrace as hr
from headrace.engine.local import EngineSettings
from headrace.testing import PipelineTest
from headrace.testing.records import append_table, record_json

NOON = "2026-01-01T12:00:00"


def test_a_run_until_caught_up_reads_the_redrive_lane_to_its_end() -> None:
    pipeline = hr.Pipeline("lanes")
    pipeline.stream(
        "events", schema="id VARCHAR NOT NULL, seen TIMESTAMP NOT NULL", event_time="seen", unique="id"
    )
    pipeline.table("total", "SELECT count(*) AS n FROM events")
    with PipelineTest(pipeline, start=NOON, settings=EngineSettings(epoch_rows_max=10)) as test:
        values = [record_json({"id": f"r{number}", "seen": NOON}).encode() for number in range(100)]
        test.log("events").lane("redrive").append(append_table(values))
        test.engine.run(threading.Event(), until_caught_up=True)
        assert test.table("total") == [{"n": 100}]
