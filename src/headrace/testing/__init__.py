"""What users need to test a pipeline: virtual time, crash points, random cuts.

from headrace.testing import PipelineTest, every_step

def test_a_purchase_is_counted_in_its_window():
    with PipelineTest(pipeline, start="2026-03-01T12:00:00") as test:
        test.send("events", {"event_id": "1", "timestamp": "2026-03-01T12:00:00"})
        test.advance("10 minutes")
        assert test.table("counts")[0]["events"] == 1
        assert test.outcomes("events") == {"accepted": 1}
"""

from headrace.testing.clock import VirtualClock
from headrace.testing.crash import CrashPolicy, SimulatedCrash, every_step, once
from headrace.testing.functions import check_function
from headrace.testing.pipeline_test import OpenLog, PipelineTest

__all__ = [
    "CrashPolicy",
    "OpenLog",
    "PipelineTest",
    "SimulatedCrash",
    "VirtualClock",
    "check_function",
    "every_step",
    "once",
]
