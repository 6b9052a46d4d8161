"""Tables of every class, outcomes, windows and crash points, through the local engine."""

import threading
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

import headrace as hr
from headrace.engine.local import EngineSettings
from headrace.errors import IntegrityError, RefusedError
from headrace.log import open_embedded_log
from headrace.sql import plan_pipeline
from headrace.store import Store
from headrace.testing import PipelineTest, every_step

SCHEMA = "id VARCHAR, user_id VARCHAR, seen TIMESTAMP NOT NULL, amount DECIMAL(12,2)"


def shop(**tables: str) -> hr.Pipeline:
    pipeline = hr.Pipeline("shop")
    pipeline.stream("events", schema=SCHEMA, event_time="seen", allowed_lateness="5 minutes", unique="id")
    for name, query in tables.items():
        pipeline.table(name, query)
    return pipeline


EVERY_CLASS = {
    "per_user": """
        SELECT window_start, user_id, count(*) AS n, sum(amount) AS total, count(DISTINCT amount) AS amounts
        FROM events GROUP BY window(seen, '10 minutes'), user_id""",
    "sliding": """
        SELECT window_start, count(*) AS n FROM events GROUP BY window(seen, '5 minutes', '2 minutes')""",
    "visits": """
        SELECT user_id, window_start, window_end, count(*) AS n
        FROM events GROUP BY session_window(seen, '3 minutes'), user_id""",
    "totals": "SELECT user_id, avg(amount) AS average FROM events GROUP BY user_id HAVING count(*) < 4",
    "overall": "SELECT count(*) AS n, count(DISTINCT user_id) AS users FROM events",
    "large": "SELECT id, amount FROM events WHERE amount >= 3",
}


def event(number: int, minute: int | None = None, user: str | None = None) -> dict[str, Any]:
    at = number if minute is None else minute
    return {
        "id": f"e{number}",
        "user_id": user or f"u{number % 3}",
        "seen": f"2026-03-01T12:{at:02d}:00Z",
        "amount": number,
    }


def fill(test: PipelineTest) -> None:
    test.send("events", [event(n) for n in range(0, 10, 2)], at="2026-03-01T12:09:00Z")
    test.run()
    test.send("events", [event(n) for n in range(9, 4, -1)], at="2026-03-01T12:10:00Z")
    test.send("events", [event(4), {"id": "bad"}, event(1, 0)], at="2026-03-01T12:11:00Z")
    test.run()
    test.send("events", [event(30), event(31)], at="2026-03-01T12:32:00Z")
    test.advance("20 minutes")


def answers(test: PipelineTest) -> dict[str, Any]:
    found: dict[str, Any] = {name: test.table(name) for name in EVERY_CLASS}
    ledger = test.ledger()
    assert ledger.balanced
    found["outcomes"] = ledger.outcomes("events")
    found["tables"] = [(line.table, line.kept, line.filtered, line.failed) for line in ledger.tables]
    found["late"] = test.late("events")
    found["minutes"] = sorted(test.query("FROM outcomes_by_minute"), key=str)
    found["closings"] = test.query(
        'SELECT "table", max(closed_through) AS t FROM _headrace._closings GROUP BY 1 ORDER BY 1'
    )
    return found


@pytest.mark.slow
@pytest.mark.untraced
def test_a_crash_after_any_step_leaves_what_an_uninterrupted_run_leaves() -> None:
    pipeline = shop(**EVERY_CLASS)
    with PipelineTest(pipeline) as calm:
        fill(calm)
        expected = answers(calm)
    with PipelineTest(pipeline, crashes=every_step()) as crashing:
        fill(crashing)
        assert answers(crashing) == expected
        assert len({step for _, step in crashing.crashes_seen}) > len(EVERY_CLASS)


def test_the_way_of_cutting_into_epochs_changes_nothing() -> None:
    pipeline = shop(**EVERY_CLASS)
    with PipelineTest(pipeline) as calm:
        fill(calm)
        expected = answers(calm)
    with PipelineTest(pipeline, cuts=7) as cut:
        fill(cut)
        assert answers(cut) == expected


def test_every_record_has_one_outcome_and_copies_are_not_counted_twice() -> None:
    with PipelineTest(shop(overall=EVERY_CLASS["overall"])) as test:
        test.send("events", [event(1), event(1), {**event(1), "amount": 5}], at="2026-03-01T12:02:00Z")
        test.run()
        test.send(
            "events",
            [event(1), {**event(2), "id": None}, {**event(2), "id": None}],
            at="2026-03-01T12:03:00Z",
        )
        test.run()
        ledger = test.ledger()
        assert ledger.outcomes("events") == {"accepted": 3, "duplicate": 3}
        assert ledger.lanes[0].conflicting == 1
        assert test.table("overall") == [{"n": 3, "users": 2}]
        sample = test.query('SELECT "offset", "value", conflicting FROM _headrace.duplicates ORDER BY ALL')
        assert [tuple(row.values()) for row in sample] == [
            (1, "e1", False),
            (2, "e1", True),
            (3, "e1", False),
        ]


def test_an_epoch_whose_ledger_does_not_balance_is_not_written_and_the_next_start_reads_it_again() -> None:
    with PipelineTest(shop(overall=EVERY_CLASS["overall"], large=EVERY_CLASS["large"])) as test:
        test.send("events", [event(1), event(4)], at="2026-03-01T12:04:00Z")
        test.run()
        before = (test.store.status(), test.table("overall"), test.table("large"))
        test.store.progress.lane("events", "main")[0].counts["accepted"] -= 1
        test.send("events", event(5), at="2026-03-01T12:05:00Z")
        with pytest.raises(IntegrityError, match="the ledger does not balance: stream 'events'"):
            test.run()
        assert (test.store.status(), test.table("overall"), test.table("large")) == before
        test.restart()
        test.run()
        assert test.ledger().balanced
        assert (test.outcomes("events"), len(test.table("large"))) == ({"accepted": 3}, 2)


def test_a_table_without_keys_has_its_row_from_the_start() -> None:
    with PipelineTest(shop(overall="SELECT count(*) AS n, sum(amount) AS total FROM events")) as test:
        assert test.table("overall") == [{"n": 0, "total": None}]


def test_a_row_that_leaves_the_filter_is_removed_and_written_down() -> None:
    with PipelineTest(
        shop(few="SELECT user_id, count(*) AS n FROM events GROUP BY user_id HAVING count(*) < 2")
    ) as test:
        test.send("events", [event(1, user="a"), event(2, user="b")], at="2026-03-01T12:03:00Z")
        test.run()
        assert len(test.table("few")) == 2
        test.send("events", [event(3, user="a")], at="2026-03-01T12:03:30Z")
        test.run()
        assert test.table("few") == [{"user_id": "b", "n": 1}]
        removed = test.query("FROM _headrace._removed")
        assert [(row["table"], row["key"], row["reason"]) for row in removed] == [
            ("few", '{"user_id":"a"}', "having")
        ]


def test_sessions_that_a_record_joins_become_one_and_the_later_one_is_removed() -> None:
    with PipelineTest(shop(visits=EVERY_CLASS["visits"])) as test:
        test.send("events", [event(1, 1, "a"), event(2, 6, "a")], at="2026-03-01T12:06:00Z")
        test.run()
        assert [row["n"] for row in test.table("visits")] == [1, 1]
        test.send("events", [event(3, 3, "a"), event(4, 4, "a")], at="2026-03-01T12:06:30Z")
        test.run()
        assert [row["n"] for row in test.table("visits")] == [4]
        assert [row["reason"] for row in test.query("FROM _headrace._removed")] == ["re-keyed"]


def test_a_row_that_fails_in_one_table_is_set_aside_there_and_kept_elsewhere() -> None:
    tables = {
        "numbers": "SELECT CAST(user_id AS INT) AS number, count(*) AS n FROM events GROUP BY 1",
        "overall": "SELECT count(*) AS n FROM events",
    }
    with PipelineTest(shop(**tables)) as test:
        test.send(
            "events",
            [event(n, user=user) for n, user in enumerate(("7", "x", "7", "y"))],
            at="2026-03-01T12:04:00Z",
        )
        test.run()
        assert test.table("numbers") == [{"number": 7, "n": 2}]
        assert test.table("overall") == [{"n": 4}]
        lines = {line.table: line for line in test.ledger().tables}
        assert (lines["numbers"].kept, lines["numbers"].failed) == (2, 2)
        assert test.ledger().balanced
        assert [row["offset"] for row in test.query('FROM _headrace.failed_rows ORDER BY "offset"')] == [1, 3]


def test_a_cell_that_fails_is_null_and_its_row_stays() -> None:
    query = "SELECT user_id, CAST(max(id) AS INT) AS number FROM events GROUP BY user_id"
    with PipelineTest(shop(cells=query)) as test:
        test.send(
            "events",
            [{**event(1, user="a"), "id": "12"}, {**event(2, user="b"), "id": "x"}],
            at="2026-03-01T12:02:00Z",
        )
        test.run()
        assert test.table("cells") == [{"user_id": "a", "number": 12}, {"user_id": "b", "number": None}]


def test_windows_older_than_keep_leave_the_store_once_they_are_closed() -> None:
    pipeline = hr.Pipeline("shop")
    pipeline.stream("events", schema=SCHEMA, event_time="seen", allowed_lateness="5 minutes")
    pipeline.table(
        "minutes",
        "SELECT window_start, count(*) AS n FROM events GROUP BY window(seen, '1 minute')",
        keep="30 minutes",
    )
    with PipelineTest(pipeline) as test:
        test.send("events", [event(1)], at="2026-03-01T12:01:00Z")
        test.run()
        test.send("events", [event(50)], at="2026-03-01T12:50:00Z")
        test.run()
        assert [row["n"] for row in test.table("minutes")] == [1]
        assert test.ledger().balanced


def test_a_changed_table_is_named_and_can_be_rebuilt_from_the_log(tmp_path: Path) -> None:
    first = shop(**EVERY_CLASS)
    with PipelineTest(first, folder=tmp_path) as test:
        fill(test)
        before = answers(test)
    changed = {**EVERY_CLASS, "per_user": EVERY_CLASS["per_user"].replace("10 minutes", "4 minutes")}
    with PipelineTest(shop(**changed)) as test:
        fill(test)
        fresh = answers(test)
    plan = plan_pipeline(shop(**changed))
    log = open_embedded_log(tmp_path / "log.db", "events")
    identities = {"events": log.identity}
    with pytest.raises(RefusedError, match="'per_user'"):
        Store.open(tmp_path / "store.duckdb", plan, identities=identities)
    store = Store.open(tmp_path / "store.duckdb", plan, identities=identities, rebuild=("per_user",))
    from headrace.engine.local import LocalEngine

    engine = LocalEngine(plan, {"events": log}, store)
    while engine.step(rows_max=3) is not None:
        pass
    ordered = "FROM per_user ORDER BY ALL"
    assert sorted(map(str, store.query(ordered).to_pylist())) == sorted(map(str, fresh["per_user"]))
    assert sorted(map(str, store.query("FROM visits").to_pylist())) == sorted(map(str, before["visits"]))
    assert store.ledger().balanced
    assert not any(table.rebuilding for table in store.status().tables)
    engine.close()
    store.close()
    log.close()


def test_a_redriven_record_is_accepted_once_whatever_its_time() -> None:
    import pyarrow as pa

    with PipelineTest(shop(overall="SELECT count(*) AS n FROM events")) as test:
        test.send("events", [{"id": "bad"}, event(30)], at="2026-03-01T12:31:00Z")
        test.run()
        lane = test._logs["events"].lane("redrive")
        value = b'{"id":"good","seen":"2026-03-01T11:00:00Z"}'
        headers = [[{"key": "headrace.address", "value": b"0:0"}]]
        kind = pa.list_(pa.struct([("key", pa.string()), ("value", pa.binary())]))
        for _ in range(2):
            lane.append(
                pa.table({"value": pa.array([value], pa.binary()), "headers": pa.array(headers, kind)})
            )
            test.restart()
            test.run()
        assert test.table("overall") == [{"n": 2}]
        lanes = {line.lane: line.outcomes for line in test.ledger().lanes}
        assert lanes["redrive"] == {"accepted": 1, "duplicate": 1}
        assert test.ledger().balanced


def test_a_run_reads_ahead_until_it_is_caught_up_and_gives_the_same_answers(tmp_path: Path) -> None:
    from headrace.engine.local import LocalEngine

    with PipelineTest(shop(**EVERY_CLASS), folder=tmp_path) as test:
        test.send("events", [event(n) for n in range(50)], at="2026-03-01T12:02:00Z")
        test.run()
        expected = [test.table(name) for name in EVERY_CLASS]
    (tmp_path / "store.duckdb").unlink()
    plan = plan_pipeline(shop(**EVERY_CLASS))
    log = open_embedded_log(tmp_path / "log.db", "events")
    store = Store.open(tmp_path / "store.duckdb", plan, identities={"events": log.identity})
    settings = EngineSettings(epoch_rows_max=7, linger=timedelta(0))
    engine = LocalEngine(plan, {"events": log}, store, settings=settings)
    epochs: list[int] = []
    engine.run(threading.Event(), until_caught_up=True, on_epoch=lambda report: epochs.append(report.epoch))
    assert len(epochs) > 3
    for name, rows in zip(EVERY_CLASS, expected, strict=True):
        assert sorted(map(str, store.query(f"FROM {name}").to_pylist())) == sorted(map(str, rows))
    engine.close()
    store.close()
    log.close()
