"""What the customers generator makes: the right shapes and shares, and incidents that can be seen."""

from __future__ import annotations

import json
from collections import Counter
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest

from headrace.blueprints import make_generator
from headrace.blueprints.customers.generator import CustomersGenerator
from headrace.blueprints.customers.pipeline import pipeline
from headrace.blueprints.customers.vocabulary import CITIES, EVENT_TYPES, PRODUCTS
from headrace.errors import ProfileError
from headrace.testing import PipelineTest

START = datetime(2026, 3, 1, 12, tzinfo=UTC)
CLEAN = {
    "late_share": 0.0,
    "duplicate_share": 0.0,
    "rejected_share": 0.0,
    "malformed_share": 0.0,
    "future_share": 0.0,
}
FIELDS = [
    "timestamp", "customer_id", "event_type", "product_category", "product_id", "amount", "quantity",
    "location",
]  # fmt: skip


def generate(count: int = 20_000, rate: float = 20.0, **settings: Any) -> pa.Table:
    return CustomersGenerator(**settings).batch(START, count, rate=rate)


def parse(table: pa.Table) -> list[dict[str, Any]]:
    return [json.loads(value, parse_float=Decimal) for value in table["value"].to_pylist()]


def outcomes(table: pa.Table) -> dict[str, float]:
    """What the pipeline makes of the records, as shares."""
    with PipelineTest(pipeline, partitions=3, start=START) as test:
        test.log("events").append(table)
        test.advance("20 minutes")
        rows = test.query("SELECT outcome, sum(records)::BIGINT AS n FROM outcomes_by_minute GROUP BY 1")
    return {row["outcome"]: row["n"] / len(table) for row in rows}


def test_the_same_seed_gives_the_same_bytes_however_they_are_cut() -> None:
    whole = generate(seed=3, rate=10.0)
    assert generate(seed=3, rate=10.0).equals(whole)
    assert not generate(seed=4, rate=10.0)["value"].equals(whole["value"])
    generator, at, pieces = CustomersGenerator(seed=3), 0, []
    for size in (1, 1, 700, 16_000, 3_298):
        pieces.append(generator.batch(START + timedelta(seconds=at / 10), size, rate=10.0))
        at += size
    assert pa.concat_tables(pieces).combine_chunks().equals(whole.combine_chunks())


def test_records_have_the_fields_and_words_that_the_pipeline_declares() -> None:
    table = generate(seed=7, **CLEAN)
    for record, key in zip(parse(table), table["key"].to_pylist(), strict=True):
        assert list(record) == FIELDS
        assert key == record["customer_id"].encode()
        assert record["product_category"] in PRODUCTS
        assert record["location"] in CITIES
        assert 1 <= record["quantity"] <= 100
        if record["event_type"] in ("view", "support_contact"):
            assert record["amount"] is None
        else:
            assert record["amount"] > 0 and record["amount"].as_tuple().exponent == -2


def test_most_look_and_few_buy_and_fewer_return() -> None:
    kinds = Counter(record["event_type"] for record in parse(generate(seed=7, **CLEAN)))
    assert set(kinds) == set(EVENT_TYPES)
    assert kinds["view"] > kinds["add_to_cart"] > kinds["purchase"] > kinds["return"] > 200


def test_clean_records_are_all_accepted() -> None:
    assert outcomes(generate(seed=5, **CLEAN)) == {"accepted": 1.0}


def test_every_share_becomes_the_outcome_that_it_is_named_after() -> None:
    shares = {"late": 0.03, "future": 0.02, "duplicate": 0.05, "rejected": 0.07, "malformed": 0.04}
    settings = {f"{name}_share": share for name, share in shares.items()}
    found = outcomes(generate(30_000, seed=6, **settings))
    shares["duplicate"] *= 1 - 0.03 - 0.02 - 0.07 - 0.04  # a copy of a bad record is as bad
    for name, share in shares.items():
        assert found[name] == pytest.approx(share, rel=0.2)


def test_every_rule_is_broken_by_some_record() -> None:
    with PipelineTest(pipeline, start=START) as test:
        test.log("events").append(generate(5_000, seed=8, **CLEAN | {"rejected_share": 0.2}))
        test.advance("1 minute")
        broken = {row["rule"]: row["rejected"] for row in test.table("quality") if row["rejected"]}
    rejecting = {name for name, rule in pipeline.streams[0].expect if rule.on_violation == "reject"}
    assert set(broken) == rejecting


@pytest.mark.parametrize(
    ("incident", "outcome"), [("quality", "rejected"), ("malformed", "malformed"), ("late", "late")]
)
def test_an_incident_goes_wrong_for_a_third_of_the_records(incident: str, outcome: str) -> None:
    assert outcomes(generate(seed=2, incident=incident))[outcome] == pytest.approx(0.3, abs=0.03)


def test_facts_count_what_was_made() -> None:
    generator = CustomersGenerator(seed=1, incident="quality", **CLEAN | {"duplicate_share": 0.05})
    values = generator.batch(START, 20_000, rate=20.0)["value"].to_pylist()
    facts = dict(generator.facts)
    copies = len(values) - len(set(values))
    assert facts["on purpose"].endswith(f"{copies:,} copies")
    assert facts["records"].startswith("view ")
    assert facts["incident"].startswith("quality: a checkout was changed")


def test_settings_are_read_by_name_and_type() -> None:
    settings = ["customers=5", "disorder=1 s", "malformed_share=0", "rejected_share=0"]
    generator = make_generator("customers", seed=1, settings=settings, incident="late")
    assert isinstance(generator, CustomersGenerator)
    assert (generator.customers, generator.disorder, generator.incident) == (5, timedelta(seconds=1), "late")
    seen = {record["customer_id"] for record in parse(generator.batch(START, 500, rate=20.0))}
    assert seen == {f"cust_{number:03d}" for number in range(1, 6)}


@pytest.mark.parametrize(
    ("settings", "word"),
    [
        ({"late_share": 1.5}, "late_share"),
        ({"late_share": 0.6, "rejected_share": 0.6}, "more than 1"),
        ({"customers": 0}, "customers"),
        ({"disorder": timedelta(minutes=5)}, "disorder"),
        ({"incident": "fire"}, "no incident 'fire'"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings: dict[str, Any], word: str) -> None:
    with pytest.raises(ProfileError, match=word):
        CustomersGenerator(**settings)


def test_no_records_are_an_empty_batch() -> None:
    assert len(generate(0)) == 0


def test_a_day_is_busier_than_a_night() -> None:
    by_hour = [CustomersGenerator().activity(START.replace(hour=hour)) for hour in range(24)]
    assert sum(by_hour) / 24 == pytest.approx(1, abs=0.01)
    assert max(by_hour) == by_hour[19] > 2 * min(by_hour)
