"""`kill -9` at random moments of a full-speed run: nothing is lost, nothing is counted twice."""

import random
from contextlib import closing
from pathlib import Path

import canonical
import pytest
from children import Child
from crash_pipeline import PARTITIONS, START, append, arrivals, expected, given, pipeline

from headrace.log import Log, open_embedded_log
from headrace.log.between import read_between
from headrace.testing import PipelineTest, VirtualClock
from servers.topics import kafka_topics

pytestmark = [pytest.mark.slow, pytest.mark.untraced]


def _fill(folder: Path, count: int, seed: int) -> dict[str, object]:
    found = arrivals(count, seed=seed)
    append(folder, found)
    return expected(found)


def _kill_often(folder: Path, *, kills: int, count: int, seed: int) -> list[float]:
    """Kill the engine `kills` times after a random line of what it says; return each restart's seconds."""
    chance = random.Random(seed)
    answers = _fill(folder, count, seed)
    restarts: list[float] = []
    killed = 0
    while True:
        lines = 1 + chance.randrange(60) if killed < kills else None
        with Child("engine", folder) as child:
            done = child.run_until(lines)
        restarts += [float(words[1]) for words in child.lines if words[0] == "first"]
        if done:
            break
        assert lines is not None, child.errors
        killed += 1
    assert killed == kills
    with PipelineTest(pipeline, partitions=PARTITIONS, folder=folder, start=START) as test:
        assert canonical.differences(answers, given(test)) == []
    return restarts


def test_an_engine_killed_three_times_gives_what_an_unkilled_one_gives(tmp_path: Path) -> None:
    _kill_often(tmp_path, kills=3, count=6000, seed=1)


@pytest.mark.soak
@pytest.mark.timeout(1200)
def test_an_engine_killed_twenty_times_gives_what_an_unkilled_one_gives(tmp_path: Path) -> None:
    restarts = _kill_often(tmp_path, kills=20, count=60_000, seed=2)
    print("restart to first commit, seconds:", sorted(round(seconds, 2) for seconds in restarts))


def _kill_producers(kills: int, log: Log, folder: Path, *kafka: str) -> None:
    """Kill producers, one after the other: what each was told stands in `log`, once and in its order."""
    chance = random.Random(kills)
    told: dict[str, int] = {}
    for number in range(kills):
        name = f"producer-{number}"
        with Child("producer", folder, name, *kafka) as child:
            child.run_until(2 + chance.randrange(30))
        told[name] = max(int(line[1]) for line in child.lines if len(line) == 2 and line[1].isdigit())
    (partition,) = log.partitions()
    assert partition.start == 0
    found: dict[str, list[int]] = {name: [] for name in told}
    for part in read_between(log, {0: 0}, {0: partition.end}):
        for value in part.column("value").to_pylist():
            name, number = value.decode().split()
            found[name].append(int(number))
    for name, numbers in found.items():
        assert numbers == list(range(len(numbers)))
        assert told[name] <= len(numbers) <= told[name] + 100  # the last append may have had no answer


_KILLS = pytest.mark.parametrize("kills", [3, pytest.param(20, marks=pytest.mark.soak)])


@_KILLS
def test_what_a_killed_producer_was_told_is_in_the_log_is_there_once(tmp_path: Path, kills: int) -> None:
    with closing(open_embedded_log(tmp_path / "log.db", "events")) as log:
        _kill_producers(kills, log, tmp_path)


@_KILLS
def test_what_a_killed_producer_was_told_is_in_the_topic_is_there_once(
    kafka_broker: str, tmp_path: Path, kills: int
) -> None:
    with (
        kafka_topics(kafka_broker) as topics,
        closing(topics.open_log("events", 1, VirtualClock(START))) as log,
    ):
        _kill_producers(kills, log, tmp_path, topics.brokers, topics.test)
