"""Golden cases on a real broker: calm, in random cuts, and with crashes; the answers never change."""

from collections.abc import Iterator
from typing import Any

import canonical
import pytest
from golden_case import NAMES, load_case
from golden_run import run_case

from headrace.testing import CrashPolicy, every_step
from servers.topics import KafkaTopics, kafka_topics

pytestmark = pytest.mark.untraced

_CALM = ("every_outcome", "poison_bytes", "two_streams", "idle_partition")
_CUT = ("one_of_four_lags", "conflicting_duplicates", "sessions_touch")
_CRASHED = ("tumbling_counts_and_sums",)
_CUTS_SOAK = (1, 2)


@pytest.fixture
def topics(kafka_broker: str) -> Iterator[KafkaTopics]:
    with kafka_topics(kafka_broker) as found:
        yield found


def _check(
    topics: KafkaTopics, name: str, *, cuts: int | None = None, crashes: CrashPolicy | None = None
) -> list[Any]:
    case = load_case(name)
    given, crashed = run_case(case, cuts=cuts, crashes=crashes, open_log=topics.open_log)
    different = canonical.differences(case.expected, given)
    assert not different, "\n".join(different[:20])
    return crashed


@pytest.mark.parametrize("name", _CALM)
def test_a_calm_run_on_kafka_gives_what_is_expected(topics: KafkaTopics, name: str) -> None:
    _check(topics, name)


@pytest.mark.slow
@pytest.mark.parametrize("name", _CUT)
def test_no_way_of_cutting_the_run_on_kafka_changes_anything(topics: KafkaTopics, name: str) -> None:
    _check(topics, name, cuts=1)


@pytest.mark.slow
@pytest.mark.parametrize("name", _CRASHED)
def test_a_crash_after_every_step_on_kafka_changes_nothing(topics: KafkaTopics, name: str) -> None:
    assert _check(topics, name, crashes=every_step())


@pytest.mark.soak
@pytest.mark.parametrize("name", NAMES)
def test_every_case_runs_calm_on_kafka(topics: KafkaTopics, name: str) -> None:
    _check(topics, name)


@pytest.mark.soak
@pytest.mark.parametrize("cuts", _CUTS_SOAK)
@pytest.mark.parametrize("name", NAMES)
def test_every_case_runs_in_random_cuts_on_kafka(topics: KafkaTopics, name: str, cuts: int) -> None:
    _check(topics, name, cuts=cuts)


@pytest.mark.soak
@pytest.mark.parametrize("name", NAMES)
def test_every_case_crashes_after_every_step_on_kafka(topics: KafkaTopics, name: str) -> None:
    assert _check(topics, name, crashes=every_step())


@pytest.mark.soak
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", NAMES)
def test_every_case_crashes_in_random_cuts_on_kafka(topics: KafkaTopics, name: str) -> None:
    share = min(1.0, 6 / len(load_case(name).arrivals))  # each crash opens the store again
    assert _check(topics, name, cuts=1, crashes=every_step(share=share, seed=NAMES.index(name)))
