"""`kill -9` of the engine and of brokers under load: nothing is lost, nothing is counted twice."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import canonical
import pytest
from crash_pipeline import PARTITIONS, arrivals, expected
from kafka_project import KafkaProject, Load, added, end, lost

from headrace.log.kafka import KafkaSettings
from servers.guard import wait_until
from servers.kafka import KafkaCluster, kafka_broker, kafka_cluster

pytestmark = [pytest.mark.slow, pytest.mark.untraced]

_RUN = ("run", "--profile", "kafka")


def _settings(brokers: str, **options: int) -> KafkaSettings:
    return KafkaSettings(
        brokers=brokers, topic="events", partitions=PARTITIONS, record_time="header", **options
    )


def _kill_often(
    project: KafkaProject, kill_broker: Callable[[], None], kills: Sequence[str], *, share: int, seed: int
) -> dict[str, list[float]]:
    """Kill what `kills` says, one after the other, while records flow; return the seconds to recover.

    That is from the start of the process that was killed to the first epoch that is committed anew.
    """
    sent = arrivals(share * (2 * len(kills) + 2), seed=seed)
    chance = random.Random(seed)
    seconds: dict[str, list[float]] = {name: [] for name in kills}
    load = Load(project, sent)
    load.allow(share)
    engine = project.headrace(*_RUN)
    try:
        at = project.wait_for_engine(engine, 1)
        for kill in kills:
            load.allow(share)
            at = project.wait_for_engine(engine, at + 1 + chance.randrange(share // 2))
            load.allow(share)
            if kill == "engine":
                end(engine)
                at = max(at, project.engine_at())
                began = time.monotonic()
                engine = project.headrace(*_RUN)
            else:
                kill_broker()
                began = time.monotonic()
            at = project.wait_for_engine(engine, at + 1)
            seconds[kill].append(time.monotonic() - began)
        load.finish()
        found = project.arrivals()
        project.wait_for_engine(engine, len(found))
        assert end(engine, signal.SIGTERM) == 0, project.said()
    finally:
        end(engine)
    assert lost(sent, found) == 0
    assert added(sent, found) == 0 or load.failures
    assert canonical.differences(expected(found), project.given()) == []
    print("seconds to recover:", {name: [round(one, 1) for one in each] for name, each in seconds.items()})
    return seconds


def _kill_engine_and_broker(folder: Path, *, engine: int, broker: int, share: int, seed: int) -> None:
    kills = ["engine"] * engine + ["broker"] * broker
    random.Random(seed).shuffle(kills)
    with kafka_broker() as one:

        def kill_broker() -> None:
            one.kill()
            one.start()

        project = KafkaProject(folder, _settings(one.bootstrap))
        _kill_often(project, kill_broker, kills, share=share, seed=seed)
        project.log.close()


def test_an_engine_and_a_broker_killed_under_load_change_nothing(kafka_here: None, tmp_path: Path) -> None:
    _kill_engine_and_broker(tmp_path, engine=1, broker=1, share=1500, seed=1)


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_ten_kills_of_the_engine_and_five_of_the_broker_change_nothing(
    kafka_here: None, tmp_path: Path
) -> None:
    _kill_engine_and_broker(tmp_path, engine=10, broker=5, share=3000, seed=2)


def _kill_leader(cluster: KafkaCluster, project: KafkaProject) -> None:
    """Kill the leader of partition 0; it stays down."""
    cluster.brokers[project.leader_of(0) - 1].kill()


@pytest.mark.soak
@pytest.mark.timeout(900)
def test_the_leader_of_three_brokers_killed_under_load_changes_nothing(
    kafka_here: None, tmp_path: Path
) -> None:
    with kafka_cluster(3, properties={"min.insync.replicas": "2"}) as cluster:
        project = KafkaProject(tmp_path, _settings(cluster.bootstrap, replication=3))
        _kill_often(project, lambda: _kill_leader(cluster, project), ["leader"], share=3000, seed=3)
        project.log.close()


@pytest.mark.soak
@pytest.mark.timeout(600)
def test_status_says_what_a_run_waits_for_while_its_broker_is_away(kafka_here: None, tmp_path: Path) -> None:
    with kafka_broker() as broker:
        project = KafkaProject(tmp_path, _settings(broker.bootstrap))
        sent = arrivals(400, seed=4)
        load = Load(project, sent)
        load.allow(200)
        engine = project.headrace(*_RUN)
        try:
            at = project.wait_for_engine(engine, 1)
            broker.kill()

            def waiting() -> str:
                command = [sys.executable, "-m", "headrace", "status", "--profile", "kafka", "--json"]
                told = subprocess.run(command, cwd=tmp_path, capture_output=True, check=True, timeout=120)
                return str(json.loads(told.stdout)["waiting"])

            wait_until(
                lambda: "no answer from" in waiting(), what="status says why the run waits", seconds=120
            )
            broker.start()
            load.finish()
            assert project.wait_for_engine(engine, len(project.arrivals())) > at
            assert waiting() == ""
            assert end(engine, signal.SIGTERM) == 0, project.said()
        finally:
            end(engine)
        project.log.close()
