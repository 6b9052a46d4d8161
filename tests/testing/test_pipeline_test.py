"""What users' tests stand on: virtual time, closing windows, crashes, restarts, redrive, random cuts."""

import runpy
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

import headrace as hr
from headrace.testing import PipelineTest, every_step

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


def shop() -> hr.Pipeline:
    pipeline = hr.Pipeline("shop")
    pipeline.stream(
        "events",
        schema="id VARCHAR NOT NULL, seen TIMESTAMP NOT NULL, user VARCHAR, amount DECIMAL(12,2)",
        event_time="seen",
        allowed_lateness="5 minutes",
        unique="id",
        key="user",
        expect={"positive": "amount > 0"},
    )
    pipeline.table(
        "revenue",
        "SELECT window_start, count(*) AS events, sum(amount) AS revenue FROM events "
        "GROUP BY window(seen, '10 minutes')",
    )
    pipeline.table("users", 'SELECT "user", sum(amount) AS spent FROM events GROUP BY "user"')
    pipeline.table("best", "SELECT * FROM users ORDER BY spent DESC LIMIT 1")
    return pipeline


def event(id: str, *, minutes: float = 0, user: str = "ann", amount: Any = Decimal("1.50")) -> dict[str, Any]:
    return {"id": id, "seen": NOON + timedelta(minutes=minutes), "user": user, "amount": amount}


def test_records_that_are_sent_are_in_the_tables_after_a_run() -> None:
    with PipelineTest(shop(), start=NOON) as test:
        test.send("events", [event("a"), event("b", user="bob", amount=Decimal("10.25"))])
        test.run()
        assert test.table("revenue") == [{"window_start": NOON, "events": 2, "revenue": Decimal("11.75")}]
        assert test.table("users") == [
            {"user": "ann", "spent": Decimal("1.50")},
            {"user": "bob", "spent": Decimal("10.25")},
        ]
        assert test.table("best") == [{"user": "bob", "spent": Decimal("10.25")}]
        assert test.outcomes("events") == test.outcomes() == {"accepted": 2}
        assert test.query("SELECT count(*) AS windows FROM revenue") == [{"windows": 1}]


def test_a_reference_lies_beside_the_file_that_declares_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "project").mkdir()
    (tmp_path / "project" / "names.csv").write_text("id,name\nann,Ann\n")
    declaring = tmp_path / "project" / "pipeline.py"
    declaring.write_text(
        "import headrace as hr\n"
        "pipeline = hr.Pipeline('named')\n"
        "pipeline.reference('names', 'names.csv', key='id')\n"
        "pipeline.stream('events', schema='id VARCHAR')\n"
        "pipeline.table('named', '''SELECT u.name FROM events e JOIN names u USING (id)''')\n"
    )
    monkeypatch.chdir(tmp_path)  # where pytest was started
    with PipelineTest(runpy.run_path(str(declaring))["pipeline"], start=NOON) as test:
        test.send("events", {"id": "ann"})
        test.run()
        assert test.table("named") == [{"name": "Ann"}]


def test_a_record_sent_at_a_later_time_moves_the_clock_and_an_earlier_one_does_not() -> None:
    with PipelineTest(shop(), start=NOON) as test:
        test.send("events", event("a"), at="2026-03-01T12:04:00")
        assert test.clock() == NOON + timedelta(minutes=4)
        test.send("events", event("b"), at=NOON)
        assert test.clock() == NOON + timedelta(minutes=4)
        test.advance("10 minutes")
        assert test.clock() == NOON + timedelta(minutes=14)
        test.send("events", event("late", minutes=0))
        test.run()
        assert test.outcomes("events") == {"accepted": 2, "late": 1}
        assert [row["id"] for row in test.late("events")] == ["late"]


def test_time_that_passes_closes_windows_without_a_record() -> None:
    with PipelineTest(shop(), start=NOON) as test:
        test.send("events", event("a"))
        test.run()
        assert _closed_through(test) is None or _closed_through(test) <= NOON
        test.advance("1 hour")
        closed = _closed_through(test)
        assert closed is not None
        assert NOON + timedelta(minutes=10) <= closed <= NOON + timedelta(hours=1)


def _closed_through(test: PipelineTest) -> datetime | None:
    return next(line.closed_through for line in test.store.status().tables if line.table == "revenue")


def test_dead_letters_show_bytes_address_and_rule() -> None:
    with PipelineTest(shop(), start=NOON, partitions=2) as test:
        test.send("events", event("a", amount=-1), partition=1)
        test.send_bytes("events", [b"{poison", None], partition=0)
        test.run()
        letters = {(one["partition"], one["offset"]): one for one in test.dead_letters("events")}
        assert letters[1, 0]["reasons"][0]["rule"] == "expect:positive"
        assert letters[0, 0]["value"] == b"{poison"
        assert letters[0, 1]["value"] is None
        assert test.outcomes("events") == {"malformed": 2, "rejected": 1}
        assert len(test.dead_letters(rule="expect:positive")) == 1
        assert len(test.dead_letters(outcome="malformed")) == 2


def test_a_dead_letter_redriven_with_a_correction_is_accepted_once() -> None:
    with PipelineTest(shop(), start=NOON) as test:
        test.send("events", [event("a"), event("b", amount=-5)])
        test.advance("3 hours")
        assert test.table("revenue")[0]["events"] == 1
        test.redrive("events", 0, 1, event("b", amount=5))
        test.redrive("events", 0, 1, event("b", amount=5))
        test.run()
        assert test.table("revenue") == [{"window_start": NOON, "events": 2, "revenue": Decimal("6.50")}]
        assert test.outcomes("events") == {"accepted": 1, "rejected": 1}
        assert test.outcomes("events", lane="redrive") == {"accepted": 1, "duplicate": 1}
        assert test.ledger().balanced


def test_a_dead_letter_redriven_as_it_was_fails_again_and_changes_nothing() -> None:
    with PipelineTest(shop(), start=NOON) as test:
        test.send("events", event("b", amount=-5))
        test.run()
        test.redrive("events", 0, 0)
        test.run()
        assert test.table("revenue") == []
        assert test.outcomes("events", lane="redrive") == {"rejected": 1}
        assert test.ledger().balanced


def test_a_restart_changes_nothing() -> None:
    with PipelineTest(shop(), start=NOON) as test:
        test.send("events", [event("a"), event("b")])
        test.run()
        before = test.table("revenue"), test.outcomes("events")
        test.restart()
        assert (test.table("revenue"), test.outcomes("events")) == before
        test.send("events", [event("b"), event("c")])
        test.run()
        assert test.outcomes("events") == {"accepted": 3, "duplicate": 1}


def test_a_crash_at_a_step_happens_once_and_the_run_goes_on() -> None:
    with PipelineTest(shop(), start=NOON) as test:
        test.crash_at("table")
        test.crash_at("commit")
        test.send("events", [event("a"), event("b")])
        test.run()
        assert len(test.crashes_seen) == 2
        assert test.crashes_seen[0][1].startswith("table:")
        assert test.crashes_seen[1][1] == "commit"
        assert test.outcomes("events") == {"accepted": 2}


@pytest.mark.slow
def test_crashes_everywhere_and_small_epochs_give_the_answers_of_a_calm_run() -> None:
    records = [
        event(f"e{number % 40}", minutes=number % 7 / 10, user=f"u{number % 5}") for number in range(60)
    ]
    answers = []
    for options in ({}, {"cuts": 1}, {"cuts": 2, "crashes": every_step(share=0.2, seed=4)}):
        with PipelineTest(shop(), start=NOON, partitions=3, **options) as test:
            test.send("events", records)
            test.run()
            answers.append((test.table("revenue"), test.table("users"), test.outcomes("events")))
            assert test.ledger().balanced
    assert answers[0] == answers[1] == answers[2]


def test_its_files_stay_in_the_folder_that_it_was_given(tmp_path: Path) -> None:
    for expected in (0, 1):
        with PipelineTest(shop(), start=NOON, folder=tmp_path / "run") as test:
            assert len(test.table("users")) == expected
            test.send("events", event("a"))
            test.run()
    assert (tmp_path / "run" / "store.duckdb").exists()


def test_a_wrong_pipeline_is_an_error_before_any_file_is_written(tmp_path: Path) -> None:
    pipeline = shop()
    pipeline.table("wrong", "SELECT nothing_like_it FROM events")
    with pytest.raises(hr.DeclarationError, match="nothing_like_it"), PipelineTest(pipeline, folder=tmp_path):
        pass
    assert list(tmp_path.iterdir()) == []


def test_it_says_that_it_must_be_opened_first() -> None:
    with pytest.raises(RuntimeError, match="use it in a `with`"):
        PipelineTest(shop()).run()
