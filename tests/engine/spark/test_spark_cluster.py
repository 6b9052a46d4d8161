"""What a look at a run on Spark says of its speed: by records, which Spark itself does not see."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest

from headrace.engine.spark.cluster import BatchFacts, ClusterFacts, cluster_facts

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

_BATCHES = (BatchFacts(4, 100.0, 500), BatchFacts(5, 110.0, 3_000))


def looked(session: SparkSession, progress: dict[str, Any] | None) -> ClusterFacts:
    """A look at a query that says `progress`."""
    return cluster_facts(session, cast(Any, SimpleNamespace(lastProgress=progress)), _BATCHES)


def worked(number: int, **milliseconds: int) -> dict[str, Any]:
    return {"batchId": number, "numInputRows": 7, "durationMs": milliseconds}


def test_rates_are_of_records_by_the_time_since_the_micro_batch_before_and_by_its_own(
    spark_session: SparkSession,
) -> None:
    facts = looked(spark_session, worked(5, addBatch=1_500, triggerExecution=2_000))
    assert facts.seconds == {"addBatch": 1.5, "triggerExecution": 2.0}
    assert (facts.batch, facts.records, facts.input_rate, facts.processing_rate) == (5, 3_000, 300, 1_500)


@pytest.mark.parametrize(
    ("progress", "rates"),
    [
        (None, (0, None, None)),  # nothing was done yet
        (worked(4, addBatch=900, triggerExecution=1_000), (500, None, 500.0)),  # the first one: since when?
        (worked(6, latestOffset=5, triggerExecution=6), (0, 0.0, 0.0)),  # it only looked for new records
        (worked(3, addBatch=900, triggerExecution=1_000), (0, None, None)),  # too long ago to be known
    ],
)
def test_what_is_not_known_of_a_rate_is_not_told(
    spark_session: SparkSession, progress: dict[str, Any] | None, rates: tuple[Any, ...]
) -> None:
    facts = looked(spark_session, progress)
    assert (facts.records, facts.input_rate, facts.processing_rate) == rates
