"""The system tables stay small while a run goes on, and say the same as before."""

from pathlib import Path

import pytest

import headrace as hr
from headrace.engine.local import minutes
from headrace.testing import PipelineTest


def test_rows_of_one_minute_are_folded_into_one_and_say_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(minutes, "FOLD_EVERY", 8)
    pipeline = hr.Pipeline("folded")
    pipeline.stream("events", schema="n INTEGER NOT NULL", expect={"small": "n < 100"})
    pipeline.table("counted", "SELECT count(*) AS n FROM events")
    with PipelineTest(pipeline, folder=tmp_path) as test:
        for n in range(24):
            test.send("events", {"n": n if n % 3 else 100})
            test.step()
        stored = test.store.connection.execute("SELECT count(*) FROM _headrace.minutes").fetchall()[0][0]
        assert stored <= 3 * 8 + 3
        outcomes = test.query("SELECT outcome, records FROM outcomes_by_minute ORDER BY outcome")
        assert outcomes == [{"outcome": "accepted", "records": 16}, {"outcome": "rejected", "records": 8}]
        (rule,) = test.query("SELECT checked, rejected FROM rule_checks")
        assert rule == {"checked": 24, "rejected": 8}
