"""A micro-batch that waits for executors says so, and a stop does not wait for it."""

from __future__ import annotations

import pytest

from headrace.engine.spark.cluster import ClusterFacts
from headrace.engine.spark.waiting import TOLD_AFTER_S, ExecutorsWait

Told = list[str | None]


@pytest.fixture
def told() -> Told:
    return []


@pytest.fixture
def wait(told: Told) -> ExecutorsWait:
    return ExecutorsWait(lambda pause: told.append(None if pause is None else pause.error.message), 1.0)


def cluster(executors: int) -> ClusterFacts:
    return ClusterFacts("spark://host:7077", "app-1", None, executors)


def test_that_nobody_works_for_a_micro_batch_is_told_once_and_so_is_that_somebody_does(
    wait: ExecutorsWait, told: Told
) -> None:
    for second in range(100):
        wait.look(cluster(0), at_work=True, now=1_000.0 + second)
    assert len(told) == 1
    assert str(told[0]).startswith("Spark at spark://host:7077 has no executor for this")
    wait.look(cluster(1), at_work=True, now=1_101.0)
    assert told[1:] == [None]


def test_executors_that_come_as_soon_as_they_do_on_a_cluster_with_room_are_nothing_to_tell(
    wait: ExecutorsWait, told: Told
) -> None:
    for begun in (0.0, 1_000.0):
        wait.look(cluster(0), at_work=True, now=begun)
        wait.look(cluster(0), at_work=True, now=begun + TOLD_AFTER_S - 1)
        wait.look(cluster(2), at_work=True, now=begun + TOLD_AFTER_S)
    assert told == []


def test_a_run_that_gave_its_executors_back_waits_for_records_and_not_for_them(
    wait: ExecutorsWait, told: Told
) -> None:
    for second in range(100):
        wait.look(cluster(0), at_work=False, now=float(second))
        assert not wait.alone
    wait.look(None, at_work=True, now=100.0)
    assert not wait.alone
    assert told == []


def test_a_stop_knows_at_once_that_nobody_works_and_forgets_it_as_soon(wait: ExecutorsWait) -> None:
    wait.look(cluster(0), at_work=True, now=0.0)
    assert wait.alone
    wait.look(cluster(1), at_work=True, now=1.0)
    assert not wait.alone
