"""`kill -9` of the commands that fill a topic: what they had acknowledged is in it, and counts once."""

from __future__ import annotations

import json
import random
import signal
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import canonical
import pytest
from batch_oracle import answer
from blueprint_oracles import ORACLES
from crash_pipeline import PARTITIONS, arrivals, expected
from kafka_project import KafkaProject, end

from headrace.blueprints import project_files
from headrace.log.kafka import KafkaSettings
from headrace.store import open_store_readonly
from servers.guard import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.untraced]

_WAIT_S_MAX = 120
_RATE = 150
"""Records a second. A file lasts much longer than anybody waits before its producer is killed."""
_MADE_ONCE = [f"--set={name}_share=0" for name in ("duplicate", "conflict", "malformed")]


@pytest.fixture
def project(kafka_broker: str, tmp_path: Path) -> KafkaProject:
    topic = f"events-{tmp_path.name}-{random.randrange(1 << 60)}"
    return KafkaProject(
        tmp_path,
        KafkaSettings(brokers=kafka_broker, topic=topic, partitions=PARTITIONS, record_time="header"),
    )


def _kill(project: KafkaProject, words: tuple[str, ...], *, when: Callable[[], bool]) -> None:
    """Start a producer, and kill it as soon as `when` holds, while it still has records to append."""
    producer = project.headrace(*words, "--profile", "kafka", "--rate", str(_RATE))
    try:
        wait_until(when, what="the producer is in the midst", seconds=_WAIT_S_MAX)
    finally:
        ended = end(producer)
    assert ended == -signal.SIGKILL, project.said()


def _run(project: KafkaProject, *words: str) -> None:
    assert project.headrace(*words, "--profile", "kafka").wait(_WAIT_S_MAX) == 0, project.said()


@pytest.mark.parametrize("kills", [1, pytest.param(20, marks=pytest.mark.soak)])
def test_a_file_whose_producer_is_killed_and_that_is_sent_again_counts_once(
    project: KafkaProject, kills: int
) -> None:
    sent = [one.value for one in arrivals(3_000, seed=kills) if one.value is not None]
    (project.folder / "file.ndjson").write_bytes(b"".join(value + b"\n" for value in sent))
    produce = ("produce", "events", "file.ndjson", "--record-time", "event")
    chance = random.Random(kills)

    def records() -> int:
        return sum(held.end for held in project.log.partitions())

    for _ in range(kills):
        enough = records() + 1 + chance.randrange(_RATE)
        _kill(project, produce, when=lambda enough=enough: records() >= enough)
    _run(project, *produce)
    found = project.arrivals()
    in_file, in_topic = Counter(sent), Counter(one.value for one in found)
    assert in_file < in_topic
    assert in_topic <= Counter({value: count * (kills + 1) for value, count in in_file.items()})
    _run(project, "run", "--until-caught-up")
    given = project.given()
    project.log.close()
    assert canonical.differences(expected(found), given) == []
    each_once = expected(list({one.value: one for one in found}.values()))
    assert canonical.differences(each_once["tables"], given["tables"]) == []


@pytest.mark.parametrize("kills", [1, pytest.param(20, marks=pytest.mark.soak)])
def test_what_a_killed_generator_said_that_it_appended_is_in_the_topic_once(
    project: KafkaProject, kills: int
) -> None:
    (project.folder / "pipeline.py").write_bytes(project_files("commerce")["pipeline.py"])
    (project.folder / "output.txt").touch()
    chance = random.Random(kills)

    def told() -> list[str]:
        return [line for line in project.said().splitlines(keepends=True) if line.startswith("{")]

    for seed in range(kills):
        enough = len(told()) + 1 + chance.randrange(_RATE)
        words = ("generate", "commerce", "--verbose", "--seed", str(seed), *_MADE_ONCE)
        _kill(project, words, when=lambda enough=enough: len(told()) >= enough)
    found = project.arrivals()
    values = [one.value or b"" for one in found]
    assert len({json.loads(value)["event_id"] for value in values}) == len(values)
    # A line says how a record begins; the last one of a process may be cut short.
    beginnings = {value[:160].decode("utf-8", "backslashreplace") for value in values}
    assert {line.rstrip("\n") for line in told() if line.endswith("\n")} <= beginnings
    _run(project, "run", "--until-caught-up")
    project.log.close()
    oracle = ORACLES["commerce"].stream
    store = open_store_readonly(project.folder / "store.duckdb")
    try:
        ledger = store.ledger()
        assert ledger.balanced
        told_by_ledger = {name: records for name, records in ledger.outcomes("events").items() if records}
        assert told_by_ledger == answer([oracle], {}, found).outcomes("events")
        (clean,) = store.query("SELECT count(DISTINCT event_id) AS records FROM events_clean").to_pylist()
        assert clean["records"] == told_by_ledger["accepted"]
    finally:
        store.close()
