"""`kill -9` of the driver of a run on Spark: nothing is lost, nothing is counted twice."""

from __future__ import annotations

import json
import random
from pathlib import Path

import canonical
import pytest
from crash_pipeline import PARTITIONS, append_table, arrivals, expected
from kafka_project import KafkaProject, end

from headrace.log.kafka import KafkaSettings
from servers.spark import SPARK_CONF

pytestmark = pytest.mark.soak

_RECORDS = 6_000
_KILLS = 2
_PROFILE = """
[profiles.cluster]
engine = "spark"
store.path = "store.duckdb"
engine_settings.epoch_rows_max = 1000
streams.events = {{ log = "kafka", brokers = {brokers}, topic = {topic}, record_time = "header" }}
"""


@pytest.mark.timeout(900)
def test_a_driver_killed_at_any_moment_changes_nothing(kafka_broker: str, tmp_path: Path) -> None:
    chance = random.Random(4)
    topic = f"events-{tmp_path.name}-{chance.randrange(1 << 60)}"
    settings = KafkaSettings(brokers=kafka_broker, topic=topic, partitions=PARTITIONS, record_time="header")
    project = KafkaProject(tmp_path, settings)
    conf = "".join(f"{json.dumps(name)} = {json.dumps(value)}\n" for name, value in SPARK_CONF.items())
    profile = _PROFILE.format(brokers=json.dumps(kafka_broker), topic=json.dumps(topic)) + conf
    with (tmp_path / "headrace.toml").open("a") as file:
        file.write(profile)
    project.log.append(append_table(arrivals(_RECORDS, seed=5)))
    found = project.arrivals()
    run = ("run", "--profile", "cluster", "--until-caught-up")
    for kill in range(_KILLS):
        driver = project.headrace(*run)
        share = len(found) // (_KILLS + 1)
        project.wait_for_engine(driver, kill * share + 1 + chance.randrange(share))
        end(driver)
    assert project.headrace(*run).wait(300) == 0, project.said()
    given = project.given()
    project.log.close()
    assert canonical.differences(expected(found), given) == []
