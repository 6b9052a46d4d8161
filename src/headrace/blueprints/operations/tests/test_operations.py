"""The project's own tests: `pytest` runs them in seconds, with a clock of their own, and nothing to start.

`send` appends records to the log as if they arrived at the time `at`, `advance` lets time pass and runs the
engine, `table` reads the answer. Change the pipeline, then change or add the test that says what you meant.
"""
# ruff: noqa: S101 - a test's name says what it shows, and it asserts

from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from headrace.operate import load_project
from headrace.testing import PipelineTest

PROJECT = Path(__file__).parent.parent


def at(clock: str) -> datetime:
    return datetime.fromisoformat(f"2026-03-01T{clock}").replace(tzinfo=UTC)


def log(clock: str, **fields: Any) -> dict[str, Any]:
    """Return a record of one log line; its id is its time unless it is given."""
    said = {
        "service": "checkout",
        "level": "INFO",
        "message": "request served",
        "duration_ms": 40,
        "host": "a",
    }
    return {"event_id": f"log-{clock}", "kind": "log", "timestamp": f"2026-03-01T{clock}Z", **said, **fields}


def click(clock: str, user: str, page: str | None = "/cart", **fields: Any) -> dict[str, Any]:
    said = {"user_id": user, "page": page, "referrer": "", "ms_on_page": 1_500}
    return {
        "event_id": f"{user}-{clock}",
        "kind": "click",
        "timestamp": f"2026-03-01T{clock}Z",
        **said,
        **fields,
    }


def payment(clock: str, status: str = "ok", amount: str = "10.00", **fields: Any) -> dict[str, Any]:
    said = {
        "account": "acc_1",
        "amount": Decimal(amount),
        "currency": "EUR",
        "status": status,
        "latency_ms": 90,
    }
    envelope = {"event_id": f"tx-{clock}", "kind": "transaction", "timestamp": f"2026-03-01T{clock}Z"}
    return {**envelope, "transaction_id": f"tx-{clock}", **said, **fields}


@pytest.fixture
def company() -> Iterator[PipelineTest]:
    with PipelineTest(load_project(PROJECT).pipeline, partitions=3, start=at("12:00:00")) as test:
        yield test


def test_a_service_has_its_errors_and_exact_quantiles_of_the_minute(company: PipelineTest) -> None:
    lines = [log(f"12:00:{n:02}", duration_ms=n) for n in range(1, 11)]
    lines += [log("12:00:30", level="ERROR", duration_ms=1_000), log("12:01:00", service="search")]
    company.send("events", lines, at=at("12:01:01"))
    company.advance("5 minutes")
    first, second = company.table("service_health")
    assert (first["service"], first["lines"], first["errors"], first["error_share"]) == (
        "checkout",
        11,
        1,
        0.0909,
    )
    assert (first["p50_ms"], first["p95_ms"], first["p99_ms"]) == (6.0, 505.0, 901.0)
    assert first["last_event_at"] == at("12:00:30")
    assert (second["service"], second["window_start"]) == ("search", at("12:01:00"))


def test_a_click_is_in_five_sliding_windows_of_its_page(company: PipelineTest) -> None:
    company.send("events", [click("12:06:30", "ann"), click("12:06:40", "ann"), click("12:06:50", "bob")],
                 at=at("12:06:51"))  # fmt: skip
    company.advance("20 minutes")
    rows = company.table("click_traffic")
    assert [row["window_start"] for row in rows] == [at(f"12:0{minute}:00") for minute in (2, 3, 4, 5, 6)]
    assert {(row["page"], row["clicks"], row["users"], row["average_s_on_page"]) for row in rows} == {
        ("/cart", 3, 2, 1.5)
    }


def test_transactions_are_added_up_exactly_by_currency_and_status(company: PipelineTest) -> None:
    sent = [
        payment("12:00:01", amount="0.10", latency_ms=100),
        payment("12:00:02", amount="0.20", latency_ms=300),
    ]
    sent += [payment("12:00:03", "failed"), payment("12:00:04", currency="USD")]
    company.send("events", sent, at=at("12:00:05"))
    company.advance("5 minutes")
    rows = {(row["currency"], row["status"]): row for row in company.table("transaction_totals")}
    assert set(rows) == {("EUR", "ok"), ("EUR", "failed"), ("USD", "ok")}
    paid = rows["EUR", "ok"]
    assert (paid["transactions"], paid["amount"]) == (2, Decimal("0.30"))
    assert (paid["mean_latency_ms"], paid["p95_latency_ms"]) == (200.0, 290.0)


def test_an_account_with_five_failed_transactions_in_ten_minutes_is_risky(company: PipelineTest) -> None:
    failed = [payment(f"12:0{minute}:00", "failed") for minute in range(5)]
    for record in failed:
        company.send("events", record, at=at(record["timestamp"][11:19]))
    company.advance("20 minutes")
    rows = company.table("risky_accounts")
    # Windows of ten minutes that hold all five: those that begin from 11:55 to 12:00.
    assert [row["window_start"] for row in rows] == [
        at(f"{hour}:{minute:02}:00")
        for hour, minute in ((11, 55), (11, 56), (11, 57), (11, 58), (11, 59), (12, 0))
    ]
    assert {(row["account"], row["failed"], row["reason"]) for row in rows} == {
        ("acc_1", 5, "failed transactions")
    }


def test_four_failed_transactions_are_no_risk_and_a_large_amount_is(company: PipelineTest) -> None:
    sent = [payment(f"12:00:0{n}", "failed") for n in range(4)]
    company.send("events", [*sent, payment("12:00:09", amount="2000.00", account="acc_2")], at=at("12:00:10"))
    company.advance("20 minutes")
    assert {(row["account"], row["reason"]) for row in company.table("risky_accounts")} == {
        ("acc_2", "large amount")
    }


def test_malformed_records_are_told_by_minute_and_reason(company: PipelineTest) -> None:
    company.send("events", [log("12:00:01"), log("12:00:02", duration_ms="slow")], at=at("12:00:03"))
    company.send_bytes("events", [b"GET /health HTTP/1.1", b"{"], at=at("12:00:04"))
    company.send("events", log("12:01:30"), at=at("12:01:31"))
    company.advance("5 minutes")
    rows = [tuple(row.values()) for row in company.table("malformed_by_minute")]
    assert rows == [
        (at("12:00:00"), "column:duration_ms", 1, 4, 0.25),
        (at("12:00:00"), "json", 2, 4, 0.5),
        (at("12:01:00"), "none", 0, 1, 0.0),
    ]


@pytest.mark.parametrize(
    ("record", "rule"),
    [
        (log("12:00:00", kind="metric"), "known_kind"),
        (log("12:00:00", level="LOUD"), "log_complete"),
        (log("12:00:00", service=None), "log_complete"),
        (click("12:00:00", "ann", page=None), "click_complete"),
        (payment("12:00:00", "lost"), "transaction_complete"),
        (payment("12:00:00", amount="-1.00"), "amount_present"),
        (payment("12:00:00", account=None), "transaction_complete"),
    ],
)
def test_a_record_that_lacks_what_its_kind_needs_is_set_aside(
    company: PipelineTest, record: dict[str, Any], rule: str
) -> None:
    company.send("events", record, at=at("12:00:01"))
    company.advance("5 minutes")
    (letter,) = company.dead_letters("events")
    assert letter["outcome"] == "rejected"
    assert [reason["rule"] for reason in letter["reasons"]] == [f"expect:{rule}"]


def test_a_negative_duration_is_a_warning(company: PipelineTest) -> None:
    company.send("events", log("12:00:00", duration_ms=-5), at=at("12:00:01"))
    company.advance("5 minutes")
    assert [row["lines"] for row in company.table("service_health")] == [1]
    warned = company.query("SELECT sum(warned)::INT AS n FROM rule_checks WHERE rule LIKE '%not_negative'")
    assert warned == [{"n": 1}]


def test_what_comes_more_than_a_minute_late_counts_in_no_window(company: PipelineTest) -> None:
    company.send("events", log("12:00:00", event_id="in time"), at=at("12:01:00"))
    company.send("events", log("12:00:00", event_id="late"), at=at("12:01:01"))
    company.advance("5 minutes")
    assert [row["lines"] for row in company.table("service_health")] == [1]
    assert [row["event_id"] for row in company.late("events")] == ["late"]


def test_a_copy_is_counted_once(company: PipelineTest) -> None:
    company.send("events", [payment("12:00:00")] * 3, at=at("12:00:01"))
    company.advance("5 minutes")
    assert [row["transactions"] for row in company.table("transaction_totals")] == [1]


def test_neither_a_crash_nor_the_size_of_a_batch_changes_an_answer(company: PipelineTest) -> None:
    records = [log(f"12:0{n}:00", duration_ms=n * 7) for n in range(10)]
    records += [payment(f"12:0{n}:30", "failed") for n in range(9)]
    records += [click(f"12:0{n}:10", f"user_{n % 3}") for n in range(9)]
    records.sort(key=lambda record: record["timestamp"])
    with PipelineTest(company.pipeline, partitions=3, start=at("12:00:00"), cuts=7) as rough:
        for step in ("duplicates", "table", "commit"):
            rough.crash_at(step)
        for test in (company, rough):
            for record in records:
                test.send("events", record, at=at(record["timestamp"][11:19]))
            test.advance("30 minutes")
        assert len(rough.crashes_seen) == 3
        for table in company.pipeline.tables:
            assert rough.table(table.name) == company.table(table.name), table.name
