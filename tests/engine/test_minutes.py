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
        (reason,) = test.query("SELECT outcome, reason, records FROM reasons_by_minute")
        assert reason == {"outcome": "rejected", "reason": "expect:small", "records": 8}


def test_a_record_with_several_reasons_counts_once_with_its_first() -> None:
    pipeline = hr.Pipeline("reasons")
    pipeline.stream(
        "events", schema="a INTEGER NOT NULL, b INTEGER NOT NULL", expect={"low": "a < 5", "lower": "a < 3"}
    )
    pipeline.table("counted", "SELECT count(*) AS n FROM events")
    with PipelineTest(pipeline) as test:
        test.send(
            "events", [{"a": 9, "b": 1}, {"a": 4, "b": 1}, {"a": "x", "b": "y"}, {"b": 1}, {"a": 1, "b": 1}]
        )
        test.send_bytes("events", [b"\xff", b"GET / HTTP/1.1"])
        test.advance("1 minute")
        reasons = test.query(
            "SELECT outcome, reason, sum(records)::INT AS n FROM reasons_by_minute GROUP BY ALL ORDER BY ALL"
        )
        outcomes = test.outcomes("events")
    assert [tuple(row.values()) for row in reasons] == [
        ("malformed", "column:a", 2),
        ("malformed", "json", 1),
        ("malformed", "utf8", 1),
        ("rejected", "expect:low", 1),
        ("rejected", "expect:lower", 1),
    ]
    assert outcomes == {"malformed": 4, "rejected": 2, "accepted": 1}
