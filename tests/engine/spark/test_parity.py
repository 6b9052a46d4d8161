"""Random pipelines over random streams: Spark answers what the local engine and the oracle answer.

`make parity` runs 200 of them; `make parity PARITY_SEED=17` runs one again, `make parity PARITY_SEED=17
PARITY_CASES=20` the twenty from that one on.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import canonical
import pytest
from batch_oracle import answer
from parity_cases import Case, case_of, opened
from random_pipelines import STREAM

from headrace.engine.spark import SparkSettings
from headrace.engine.spark.engine import SparkEngine
from headrace.operate.verify.comparing import compare_stores
from headrace.sql import plan_pipeline
from headrace.testing import PipelineTest
from servers.topics import KafkaTopics, kafka_topics

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

_SAMPLE = (3,)
_CASES = 200


def _seeds() -> list[int]:
    first, cases = (os.environ.get(name, "") for name in ("PARITY_SEED", "PARITY_CASES"))
    start = int(first or 0)
    return [*range(start, start + int(cases or (1 if first else _CASES)))]


@pytest.fixture
def topics(kafka_broker: str) -> Iterator[KafkaTopics]:
    with kafka_topics(kafka_broker) as found:
        yield found


def _run_on_spark(test: PipelineTest, case: Case, session: SparkSession) -> None:
    store = test.store
    settings = SparkSettings(batch_rows_max=case.batch_rows_max, quiet=timedelta(hours=1))
    logs = {"events": test.log("events")}
    engine = SparkEngine(store.plan, logs, store, spark=settings, session=session)
    try:
        engine.run(threading.Event(), until_caught_up=True)
    finally:
        engine.close()


def _check(number: int, topics: KafkaTopics, session: SparkSession, folder: Path) -> None:
    case = case_of(number)
    with opened(case, folder / "local") as local, opened(case, folder / "spark", topics.open_log) as spark:
        local.run()
        _run_on_spark(spark, case, session)
        found = list(compare_stores(plan_pipeline(case.pipeline()), local.store, spark.store))
        different = [
            f"{one.title}: {dict(each.key)} {each.column}: local {each.local}, Spark {each.spark}"
            for one in found
            for each in one.differences
        ]
        assert not different, f"seed {number}\n" + "\n".join(different[:20])
        _check_by_oracle(case, spark)


def _check_by_oracle(case: Case, spark: PipelineTest) -> None:
    expected = answer([STREAM], {name: one.table for name, one in case.described.items()}, case.arrivals)
    outcomes = dict(sorted(expected.outcomes("events").items()))
    assert dict(sorted(spark.outcomes("events").items())) == outcomes, f"seed {case.number}"
    for name in case.described:
        wanted = canonical.rows(expected.tables[name])
        assert canonical.differences(wanted, canonical.rows(spark.table(name))) == [], f"seed {case.number}"


@pytest.mark.slow
@pytest.mark.parametrize("number", _SAMPLE)
def test_a_random_pipeline_answers_the_same_on_both_engines(
    number: int, topics: KafkaTopics, spark_session: SparkSession, tmp_path: Path
) -> None:
    _check(number, topics, spark_session, tmp_path)


@pytest.mark.soak
@pytest.mark.timeout(600)
@pytest.mark.parametrize("seed", _seeds())
def test_many_random_pipelines_answer_the_same_on_both_engines(
    seed: int, topics: KafkaTopics, spark_session: SparkSession, tmp_path: Path
) -> None:
    _check(seed, topics, spark_session, tmp_path)


@pytest.mark.slow
def test_random_cases_are_the_same_every_time_and_have_all_orders_and_many_records() -> None:
    cases = [case_of(number) for number in range(12)]
    assert cases[5].pipeline().tables == case_of(5).pipeline().tables
    assert cases[5].arrivals == case_of(5).arrivals
    assert len({case.order for case in cases}) == 3
    assert sum(len(case.arrivals) for case in cases) > 12 * 15
