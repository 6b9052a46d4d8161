"""Golden cases in processes that are killed after every step of an epoch; the answers never change."""

import json
import signal
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import canonical
import pytest
from golden_case import NAMES, load_case

from servers.topics import KafkaTopics, kafka_topics

pytestmark = [pytest.mark.untraced]

_CASES = (
    "conflicting_duplicates",
    "count_distinct",
    "every_outcome",
    "having_is_left_again",
    "reference_join",
    "rows_latest_by_key",
    "sessions_merge_across_epochs",
    "two_streams",
    "unnest_items",
)
_CHILD = Path(__file__).with_name("killed_child.py")
_STEPS = range(1, 100)
_LIVES = 0
_PASSED = {"read", "table", "outcomes", "ledger", "commit"}
_NO_TABLE = {"derive_and_expect"}
"""Their first epoch, in which most processes end, sets every record aside: no table has a step in it."""


@pytest.fixture
def topics(kafka_broker: str) -> Iterator[KafkaTopics]:
    with kafka_topics(kafka_broker) as found:
        yield found


def _kill_and_check(
    name: str, folder: Path, steps: Iterable[int], topics: KafkaTopics | None = None
) -> set[str]:
    """Run a case in processes, each killed after so many steps, until one lives; return what was passed last.

    Its log is on Kafka where `topics` are given.
    """
    killed_after = set()
    on_kafka = [] if topics is None else [topics.brokers, topics.test]
    for step in (*steps, _LIVES):
        words = [sys.executable, str(_CHILD), name, str(folder), str(step), *on_kafka]
        done = subprocess.run(words, capture_output=True, text=True, timeout=120, check=False)
        if done.returncode == 0:
            break
        assert step and done.returncode == -signal.SIGKILL, done.stderr
        killed_after.add(done.stderr.split()[-1].partition(":")[0])
    different = canonical.differences(load_case(name).expected, json.loads(done.stdout))
    assert not different, "\n".join(different[:20])
    return killed_after


def _kill_after_every_step(name: str, folder: Path, topics: KafkaTopics | None = None) -> None:
    # Each process lives a step longer than the one before.
    killed_after = _kill_and_check(name, folder, _STEPS, topics)
    assert killed_after >= _PASSED - ({"table"} if name in _NO_TABLE else set())


@pytest.mark.slow
def test_a_case_on_kafka_whose_process_is_killed_before_and_after_a_commit_gives_what_is_expected(
    topics: KafkaTopics, tmp_path: Path
) -> None:
    assert _kill_and_check("conflicting_duplicates", tmp_path, (4, 8), topics) == {"table", "commit"}


@pytest.mark.soak
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", _CASES)
def test_a_case_whose_process_is_killed_after_every_step_gives_what_is_expected(
    name: str, tmp_path: Path
) -> None:
    _kill_after_every_step(name, tmp_path)


@pytest.mark.soak
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", NAMES)
def test_a_case_on_kafka_whose_process_is_killed_after_every_step_gives_what_is_expected(
    topics: KafkaTopics, name: str, tmp_path: Path
) -> None:
    _kill_after_every_step(name, tmp_path, topics)
