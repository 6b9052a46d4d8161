"""Why is this number this: the records that the page finds behind a row are those that made it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from page_support import RunningPage, eventually, running_page

from headrace.log.arrays import Mask
from headrace.operate import open_log
from headrace.rows import RowStage
from headrace.web.page.scanning import Budget, outcomes_between

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningPage]:
    with running_page(tmp_path_factory.mktemp("why") / "commerce") as made:
        yield made


def rows_of(page: RunningPage, table: str, order: str) -> list[dict[str, Any]]:
    _, rows, _ = page.ask("GET", f"/api/tables/{table}/rows?limit=200&order={order}")
    names = [each["name"] for each in rows["columns"]]
    return [dict(zip(names, row, strict=True)) for row in rows["rows"]]


def why(page: RunningPage, table: str, row: dict[str, Any]) -> dict[str, Any]:
    status, answer, _ = page.ask("POST", f"/api/tables/{table}/why", {"row": row})
    assert status == 200, answer
    return answer  # type: ignore[no-any-return]


def left_out(answer: dict[str, Any], what: str) -> int:
    return sum(each["records"] for each in answer["left_out"] if each["what"] == what)


@pytest.mark.parametrize(
    ("table", "order", "count"),
    [
        ("event_counts", "window_start", "events"),
        ("user_activity", "window_start", "events"),
        ("purchase_analytics", "window_start", "orders"),
        ("sessions", "session_start", "events"),
        ("device_stats", "window_start", "events"),
    ],
)
def test_as_many_records_are_found_behind_a_row_as_it_counts(
    page: RunningPage, table: str, order: str, count: str
) -> None:
    rows = rows_of(page, table, order)
    for row in (rows[0], rows[len(rows) // 2], rows[-1]):
        answer = why(page, table, row)
        assert answer["row"] == row
        assert answer["notes"] == []
        assert answer["records"] == row[count]
        assert len(answer["samples"]) == min(row[count], 50)
        for name in ("user_id", "event_type", "device"):
            if name in row:
                assert {json.loads(each["value"]).get(name) for each in answer["samples"]} == {row[name]}


def test_a_record_that_gives_several_rows_is_one_record(page: RunningPage) -> None:
    row = rows_of(page, "product_sales", "window_start")[0]
    answer = why(page, "product_sales", row)
    assert answer["records"] > 0
    assert answer["records"] == len({each["address"] for each in answer["samples"]})
    bought = sum(
        item["quantity"]
        for each in answer["samples"]
        for item in json.loads(each["value"])["items"]
        if item["product_id"] == row["product_id"]
    )
    assert bought == int(row["bought"])


def test_a_row_that_is_a_record_leads_to_its_bytes(page: RunningPage) -> None:
    row = rows_of(page, "events_clean", "event_id")[0]
    answer = why(page, "events_clean", row)
    assert answer["records"] == 1
    assert json.loads(answer["samples"][0]["value"])["event_id"] == row["event_id"]


def test_what_was_left_out_of_a_row_is_said_with_the_reason(page: RunningPage) -> None:
    now = page.runtime.logs["events"].now()
    minute = now.replace(second=0, microsecond=0)
    facts = {"event_type": "search", "user_id": "left-out", "device": "mobile", "timestamp": now.isoformat()}
    good = json.dumps({"event_id": "lo-1", **facts}).encode()
    broken = json.dumps({"event_id": "lo-2", **facts, "device": "toaster"}).encode()
    read = page.read()
    page.send(good, good, good, broken, b"{nothing")
    eventually(lambda: page.read() >= read + 5)
    answer = why(page, "user_activity", {"window_start": minute.isoformat(), "user_id": "left-out"})
    assert answer["records"] == answer["row"]["events"] == 1
    assert left_out(answer, "duplicate") == 2
    assert left_out(answer, "rejected") == 1
    assert left_out(answer, "malformed") >= 1
    assert any("{nothing" in one["value"] for each in answer["left_out"] for one in each["samples"])


def test_a_late_record_is_named_where_it_would_have_counted(page: RunningPage) -> None:
    first = rows_of(page, "event_counts", "window_start")[0]
    at = datetime.fromisoformat(first["window_start"])
    facts = {"event_id": "late-1", "user_id": "u", "device": "mobile", "timestamp": at.isoformat()}
    late = json.dumps({**facts, "event_type": first["event_type"]}).encode()
    if datetime.now(UTC) - at < timedelta(minutes=5):
        pytest.fail("the history is too short for a late record")
    before, read = why(page, "event_counts", first), page.read()
    page.send(late)
    eventually(lambda: page.read() > read)
    after = why(page, "event_counts", first)
    assert left_out(after, "late") == left_out(before, "late") + 1
    assert after["records"] == before["records"]


def test_what_has_no_records_behind_it_is_refused_in_words(page: RunningPage) -> None:
    for table, row, words in (
        ("funnel", {}, "a query over other tables"),
        ("epochs", {}, "no records stand behind"),
        ("nothing", {}, "no records stand behind"),
        ("event_counts", {"event_type": "search"}, "not told apart"),
        ("event_counts", {"event_type": "search", "window_start": "1999-01-01"}, "no such row"),
        ("event_counts", {"event_type": "search", "window_start": "'; DROP VIEW x"}, "no such row"),
        ("event_counts", {"event_type": [1], "window_start": None}, "no plain value"),
    ):
        status, answer, _ = page.ask("POST", f"/api/tables/{table}/why", {"row": row})
        assert status == 422, table
        assert words in answer["error"]


def test_a_search_says_what_it_did_not_look_at(page: RunningPage) -> None:
    def nothing(lane: str, rows: pa.Table) -> tuple[Mask, Mask]:
        none = np.zeros(rows.num_rows, dtype=np.bool_)
        return none, none.copy()

    log = open_log(page.project, "events")
    stage = RowStage(page.runtime.plan.streams["events"])
    asked = partial(outcomes_between, log, stage, times=None, seen=set(), before=nothing)
    try:
        ends = {each.partition: each.end for each in log.partitions()}
        budget = Budget(records=100)
        found = sum(each.records.num_rows for each in asked(ends, budget=budget))
        assert found == budget.scanned <= 100
        assert any("only 100 of about" in note for note in budget.notes)
        budget = Budget(until=0.0)
        assert list(asked(ends, budget=budget)) == []
        assert any("took too long" in note for note in budget.notes)
    finally:
        stage.close()
        log.close()
