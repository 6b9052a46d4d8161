"""Golden cases on Spark, over a real broker, in several micro-batches: the answers never change."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import canonical
import pytest
from golden_case import NAMES, load_case
from spark_run import run_on_spark

from servers.topics import KafkaTopics, kafka_topics

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

_SAMPLE = (
    "every_outcome",
    "one_of_four_lags",
    "conflicting_duplicates",
    "sessions_touch",
    "reference_join",
    "rows_that_fail_in_one_table",
)
_ROWS_MAX = (7, 1000)
_STEPS = ("action", "duplicates", "outcomes", "closings", "ledger", "commit", "publish")


@pytest.fixture
def topics(kafka_broker: str) -> Iterator[KafkaTopics]:
    with kafka_topics(kafka_broker) as found:
        yield found


def _check(
    name: str,
    topics: KafkaTopics,
    session: SparkSession,
    batch_rows_max: int,
    *,
    crash_at: Sequence[str] = (),
) -> int:
    case = load_case(name)
    given, batches = run_on_spark(case, topics, session, batch_rows_max=batch_rows_max, crash_at=crash_at)
    different = canonical.differences(case.expected, given)
    assert not different, "\n".join(different[:20])
    return batches


@pytest.mark.parametrize("name", _SAMPLE)
def test_small_micro_batches_on_spark_give_what_is_expected(
    name: str, topics: KafkaTopics, spark_session: SparkSession
) -> None:
    case = load_case(name)
    batches = _check(name, topics, spark_session, _ROWS_MAX[0])
    assert batches > 1 or len(case.arrivals) <= _ROWS_MAX[0]


@pytest.mark.slow
def test_a_driver_that_dies_around_its_commit_loses_nothing_and_repeats_nothing(
    topics: KafkaTopics, spark_session: SparkSession
) -> None:
    _check("conflicting_duplicates", topics, spark_session, _ROWS_MAX[0], crash_at=("ledger", "commit"))


@pytest.mark.soak
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", ["every_outcome", "sessions_touch", "conflicting_duplicates"])
def test_a_driver_that_dies_after_every_step_loses_nothing_and_repeats_nothing(
    name: str, topics: KafkaTopics, spark_session: SparkSession
) -> None:
    _check(name, topics, spark_session, _ROWS_MAX[0], crash_at=_STEPS)


@pytest.mark.soak
@pytest.mark.parametrize("batch_rows_max", _ROWS_MAX)
@pytest.mark.parametrize("name", NAMES)
def test_every_case_gives_on_spark_what_is_expected(
    name: str, batch_rows_max: int, topics: KafkaTopics, spark_session: SparkSession
) -> None:
    _check(name, topics, spark_session, batch_rows_max)
