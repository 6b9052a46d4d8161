"""Random streams through random tables: the engine gives what the oracle gives, however the run is cut."""

from collections import Counter
from typing import Any

import canonical
import pytest
from batch_oracle import Answer, answer
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from oracle_model import Arrival
from random_pipelines import NOON, STREAM, Described, Sent, arrivals_of, pipeline_of, sent, streams, tables

from headrace.testing import OpenLog, PipelineTest, every_step
from servers.topics import kafka_topics

pytestmark = [pytest.mark.slow, pytest.mark.untraced]

_COMMON: dict[str, Any] = {
    "deadline": None,
    "database": None,
    "suppress_health_check": list(HealthCheck),
}

_CALM, _CUT_WITH_CRASHES = 8, 45
# Hypothesis begins with the least there is; where few examples are run, each must have something in it.
_rich_streams = st.lists(sent, min_size=20, max_size=40).filter(
    lambda found: len({one.content for one in found}) > 9
)
_rich_tables = tables.filter(lambda found: len(found) > 2)


def _expected(found: Answer, names: list[str]) -> dict[str, Any]:
    return {
        "outcomes": dict(sorted(found.outcomes("events").items())),
        "late": [[partition, offset] for partition, offset, _, _ in found.addresses("events", "late")],
        "dead": [
            [partition, offset, outcome, list(rules)]
            for partition, offset, outcome, rules in found.addresses(
                "events", "malformed", "rejected", "future"
            )
        ],
        "kept": {name: found.table_counts[name, "events"]["kept"] for name in names},
        "tables": {name: canonical.rows(found.tables[name]) for name in names},
    }


def _given(test: PipelineTest, names: list[str]) -> dict[str, Any]:
    ledger = test.ledger()
    assert ledger.balanced
    kept = {line.table: line.kept for line in ledger.tables}
    return {
        "outcomes": dict(sorted(test.outcomes("events").items())),
        "late": sorted([row["_partition"], row["_offset"]] for row in test.late("events")),
        "dead": sorted(
            [
                row["partition"],
                row["offset"],
                row["outcome"],
                sorted(reason["rule"] for reason in row["reasons"]),
            ]
            for row in test.dead_letters("events")
        ),
        "kept": {name: kept[name] for name in names},
        "tables": {name: canonical.rows(test.table(name)) for name in names},
    }


def _append(test: PipelineTest, arrivals: list[Arrival], step_every: int) -> None:
    for number, one in enumerate(arrivals):
        test.send_bytes(one.stream, [one.value], at=one.record_time, partition=one.partition)
        if step_every and number % step_every == 0:
            test.step()


def check(
    described: dict[str, Described], records: list[Sent], seed: int, open_log: OpenLog | None = None
) -> None:
    """One random pipeline: calm or cut, with or without crashes, as `seed` says."""
    arrivals = arrivals_of(records)
    found = answer([STREAM], {name: one.table for name, one in described.items()}, arrivals)
    crashes = every_step(share=0.1, seed=seed) if seed % 3 == 0 else None
    with PipelineTest(
        pipeline_of(described),
        partitions=3,
        start=NOON,
        cuts=seed if seed % 2 else None,
        crashes=crashes,
        open_log=open_log,
    ) as test:
        _append(test, arrivals, step_every=seed % 5)
        test.run()
        if seed % 4 == 0:
            test.restart()
            test.advance("2 hours")
        names = list(described)
        assert canonical.differences(_expected(found, names), _given(test, names)) == []


@settings(max_examples=30, derandomize=True, **_COMMON)
@given(described=tables, records=streams, seed=st.integers(0, 10_000))
def test_a_random_stream_gives_what_the_oracle_gives(
    described: dict[str, Described], records: list[Sent], seed: int
) -> None:
    check(described, records, seed)


@pytest.mark.soak
@pytest.mark.timeout(7200)
@settings(max_examples=2000, **_COMMON)
@given(described=tables, records=streams, seed=st.integers(0, 10_000))
def test_thousands_of_random_streams_give_what_the_oracle_gives(
    described: dict[str, Described], records: list[Sent], seed: int
) -> None:
    check(described, records, seed)


def check_on_kafka(brokers: str, described: dict[str, Described], records: list[Sent], seed: int) -> None:
    with kafka_topics(brokers) as topics:
        check(described, records, seed, topics.open_log)


@pytest.mark.parametrize("seed", [_CALM, _CUT_WITH_CRASHES])
@settings(max_examples=1, derandomize=True, phases=[Phase.generate], **_COMMON)
@given(described=_rich_tables, records=_rich_streams)
def test_a_random_stream_on_kafka_gives_what_the_oracle_gives(
    kafka_broker: str, described: dict[str, Described], records: list[Sent], seed: int
) -> None:
    check_on_kafka(kafka_broker, described, records, seed)


@pytest.mark.soak
@pytest.mark.timeout(7200)
@settings(max_examples=300, **_COMMON)
@given(described=tables, records=streams, seed=st.integers(0, 10_000))
def test_hundreds_of_random_streams_on_kafka_give_what_the_oracle_gives(
    kafka_broker: str, described: dict[str, Described], records: list[Sent], seed: int
) -> None:
    check_on_kafka(kafka_broker, described, records, seed)


def test_random_streams_have_every_outcome_in_them() -> None:
    outcomes: Counter[str] = Counter()

    @settings(max_examples=100, derandomize=True, **_COMMON)
    @given(records=streams)
    def collect(records: list[Sent]) -> None:
        outcomes.update(answer([STREAM], {}, arrivals_of(records)).outcomes("events"))

    collect()
    assert set(outcomes) == {"malformed", "rejected", "future", "late", "duplicate", "accepted"}
    assert outcomes["accepted"] > sum(outcomes.values()) / 5
