"""What the operations generator makes: the right shapes and shares, and incidents that can be seen."""

from __future__ import annotations

import json
from collections import Counter
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest

from headrace.blueprints import make_generator
from headrace.blueprints.operations.generator import OperationsGenerator
from headrace.errors import ProfileError

START = datetime(2026, 3, 1, 12, tzinfo=UTC)
CLEAN = {"late_share": 0.0, "duplicate_share": 0.0, "malformed_share": 0.0, "future_share": 0.0}
FIELDS = {
    "log": {"service", "level", "message", "duration_ms", "host"},
    "click": {"user_id", "page", "referrer", "ms_on_page"},
    "transaction": {"transaction_id", "account", "amount", "currency", "status", "latency_ms"},
}
KEYS = {"log": "service", "click": "user_id", "transaction": "account"}


def generate(count: int = 20_000, rate: float = 20.0, **settings: Any) -> pa.Table:
    return OperationsGenerator(**settings).batch(START, count, rate=rate)


def parse(table: pa.Table) -> list[dict[str, Any]]:
    return [json.loads(value, parse_float=Decimal) for value in table["value"].to_pylist()]


def share(records: list[dict[str, Any]], **wanted: Any) -> float:
    found = sum(all(record.get(name) == value for name, value in wanted.items()) for record in records)
    return found / len(records)


def test_the_same_seed_gives_the_same_bytes_however_they_are_cut() -> None:
    whole = generate(seed=3, rate=10.0)
    assert generate(seed=3, rate=10.0).equals(whole)
    assert not generate(seed=4, rate=10.0)["value"].equals(whole["value"])
    generator, at, pieces = OperationsGenerator(seed=3), 0, []
    for size in (1, 1, 700, 16_000, 3_298):
        pieces.append(generator.batch(START + timedelta(seconds=at / 10), size, rate=10.0))
        at += size
    assert pa.concat_tables(pieces).combine_chunks().equals(whole.combine_chunks())


def test_three_kinds_share_one_envelope_and_each_has_its_fields_and_its_key() -> None:
    table = generate(seed=7, **CLEAN)
    records = parse(table)
    for record, key in zip(records, table["key"].to_pylist(), strict=True):
        kind = record["kind"]
        assert set(record) == {"event_id", "kind", "timestamp"} | FIELDS[kind]
        assert key == record[KEYS[kind]].encode()
    assert len({record["event_id"] for record in records}) == len(records)
    kinds = Counter(record["kind"] for record in records)
    assert kinds["log"] > kinds["click"] > kinds["transaction"] > 2_000


def test_values_are_of_the_kinds_that_the_pipeline_declares() -> None:
    records = parse(generate(seed=7, **CLEAN))
    payments = [record for record in records if record["kind"] == "transaction"]
    assert all(p["amount"].as_tuple().exponent == -2 and p["amount"] > 0 for p in payments)
    assert {p["status"] for p in payments} == {"ok", "failed", "pending"}
    logs = [record for record in records if record["kind"] == "log"]
    assert {line["level"] for line in logs} == {"DEBUG", "INFO", "WARN", "ERROR"}
    assert all(isinstance(line["duration_ms"], int) and line["duration_ms"] >= 0 for line in logs)
    currencies: dict[str, set[str]] = {}
    for payment in payments:
        currencies.setdefault(payment["account"], set()).add(payment["currency"])
    assert {len(held) for held in currencies.values()} == {1}


def test_arrivals_are_in_order_and_late_and_future_records_have_their_share() -> None:
    table = generate(20_000, seed=1, **CLEAN | {"late_share": 0.05, "future_share": 0.02})
    arrivals = table["record_time"].to_pylist()
    assert arrivals == sorted(arrivals)
    delays = [
        arrival - datetime.fromisoformat(record["timestamp"])
        for arrival, record in zip(arrivals, parse(table), strict=True)
    ]
    assert sum(delay > timedelta(minutes=1) for delay in delays) / 20_000 == pytest.approx(0.05, abs=0.005)
    assert sum(delay < -timedelta(minutes=1) for delay in delays) / 20_000 == pytest.approx(0.02, abs=0.003)


def test_copies_are_true_copies_and_counted_apart() -> None:
    generator = OperationsGenerator(seed=1, **CLEAN | {"duplicate_share": 0.05})
    values = generator.batch(START, 20_000, rate=20.0)["value"].to_pylist()
    copies = len(values) - len(set(values))
    assert copies / 20_000 == pytest.approx(0.05, abs=0.005)
    facts = dict(generator.facts)
    assert facts["on purpose"] == f"0 malformed, {copies:,} copies"


def is_usable(value: bytes) -> bool:
    try:
        record = json.loads(value.decode("utf-8"), parse_constant=lambda text: 1 / 0)
        datetime.fromisoformat(record["timestamp"])
        return isinstance(record["kind"], str) and "event_id" in record
    except (ValueError, KeyError, TypeError, ZeroDivisionError):
        return False


def test_malformed_records_have_their_share() -> None:
    values = generate(20_000, seed=1, **CLEAN | {"malformed_share": 0.05})["value"].to_pylist()
    bad = sum(not is_usable(value) for value in values)
    assert bad / 20_000 == pytest.approx(0.05, abs=0.005)


def test_latency_makes_one_service_and_all_payments_slow() -> None:
    records = parse(generate(seed=2, incident="latency", **CLEAN))
    slow: Counter[str] = Counter()
    lines: Counter[str] = Counter()
    for record in records:
        if record["kind"] == "log":
            lines[record["service"]] += 1
            slow[record["service"]] += record["duration_ms"] > 5_000
    slow = +slow
    assert len(slow) == 1
    (service,) = slow
    assert slow[service] / lines[service] == pytest.approx(0.7, abs=0.05)
    payments = [record for record in records if record["kind"] == "transaction"]
    assert sum(p["latency_ms"] > 5_000 for p in payments) / len(payments) == pytest.approx(0.7, abs=0.05)


def test_errors_make_one_service_and_payments_fail_and_a_few_accounts_insist() -> None:
    calm, wild = parse(generate(seed=2, **CLEAN)), parse(generate(seed=2, incident="errors", **CLEAN))
    failing = {
        service: share([r for r in wild if r.get("service") == service], level="ERROR")
        for service in {r["service"] for r in wild if r["kind"] == "log"}
    }
    assert sum(part > 0.3 for part in failing.values()) == 1
    payments = [[r for r in records if r["kind"] == "transaction"] for records in (calm, wild)]
    assert share(payments[0], status="failed") < 0.05
    assert share(payments[1], status="failed") > 0.4
    failed = Counter(payment["account"] for payment in payments[1] if payment["status"] == "failed")
    assert failed.most_common(3)[2][1] > 10 * failed.most_common(4)[3][1]


def test_malformed_breaks_a_third_of_the_records() -> None:
    values = generate(seed=2, incident="malformed")["value"].to_pylist()
    assert sum(not is_usable(value) for value in values) / len(values) == pytest.approx(0.3, abs=0.02)


def test_an_incident_is_asked_for_by_name() -> None:
    assert (
        make_generator("operations", incident="errors").facts[-1][1].startswith("errors: one service fails")
    )
    with pytest.raises(ProfileError, match="no incident 'eror'; did you mean 'errors'") as refused:
        make_generator("operations", incident="eror")
    assert "latency: one service answers slowly" in refused.value.fix
    with pytest.raises(ProfileError, match="no incident 'errors'") as refused:
        make_generator("commerce", incident="errors")
    assert "makes none" in refused.value.fix


@pytest.mark.parametrize(
    ("settings", "word"),
    [
        ({"late_share": 1.5}, "late_share"),
        ({"late_share": 0.6, "duplicate_share": 0.6}, "more than 1"),
        ({"users": 0}, "users"),
        ({"disorder": timedelta(minutes=1)}, "disorder"),
        ({"incident": "fire"}, "no incident 'fire'"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings: dict[str, Any], word: str) -> None:
    with pytest.raises(ProfileError, match=word):
        OperationsGenerator(**settings)


def test_no_records_are_an_empty_batch() -> None:
    assert len(generate(0)) == 0


def test_a_day_is_busier_than_a_night() -> None:
    by_hour = [OperationsGenerator().activity(START.replace(hour=hour)) for hour in range(24)]
    assert sum(by_hour) / 24 == pytest.approx(1, abs=0.01)
    assert max(by_hour) == by_hour[15] > 2 * min(by_hour)
