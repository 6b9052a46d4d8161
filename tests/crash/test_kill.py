"""`kill -9` at random moments of a full-speed run: nothing is lost, nothing is counted twice."""

import random
from datetime import timedelta
from pathlib import Path

import canonical
import pytest
from children import Child
from crash_pipeline import PARTITIONS, START, append, arrivals, expected, given, pipeline

from headrace.log import open_embedded_log
from headrace.testing import PipelineTest

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


@pytest.mark.parametrize("kills", [3, pytest.param(20, marks=pytest.mark.soak)])
def test_what_a_killed_producer_was_told_is_in_the_log_is_there_once(tmp_path: Path, kills: int) -> None:
    chance = random.Random(kills)
    acknowledged = 0
    for _ in range(kills):
        with Child("producer", tmp_path, 1_000_000) as child:
            child.run_until(2 + chance.randrange(30))
        counts = [int(words[1]) for words in child.lines if len(words) == 2 and words[1].isdigit()]
        assert counts[0] >= acknowledged
        acknowledged = counts[-1]
    log = open_embedded_log(tmp_path / "log.db", "events")
    (partition,) = log.partitions()
    assert partition.start == 0
    assert acknowledged <= partition.end <= acknowledged + 100
    values, position = [], 0
    while position < partition.end:
        piece = log.read({0: position}, rows_max=10_000, bytes_max=1 << 24, wait=timedelta(0))
        values += [int(value) for value in piece.records.column("value").to_pylist()]
        position = piece.next[0]
    log.close()
    assert values == list(range(partition.end))
