"""A stream that moves to Kafka while the copy is killed gives the tables that it gave on the embedded log."""

from __future__ import annotations

import uuid
from pathlib import Path

import canonical
import pytest
from crash_pipeline import PARTITIONS, START, append, arrivals, expected, given, pipeline
from kafka_project import KafkaProject, end

from headrace.log.kafka import KafkaSettings
from headrace.testing import PipelineTest
from servers.guard import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.untraced]

_COPY = ("log", "copy", "--from-profile", "local", "--to-profile", "kafka")


def test_a_copy_to_kafka_that_was_killed_and_resumed_gives_the_same_tables(
    kafka_broker: str, tmp_path: Path
) -> None:
    settings = KafkaSettings(
        brokers=kafka_broker,
        topic=f"copied-{uuid.uuid4().hex[:10]}",
        partitions=PARTITIONS,
        record_time="header",
    )
    project = KafkaProject(tmp_path, settings)
    data = tmp_path / ".headrace"
    data.mkdir()
    found = arrivals(20_000, seed=5)
    append(data, found)
    copied = lambda: sum(each.end for each in project.log.partitions())  # noqa: E731
    copying = project.headrace(*_COPY)
    wait_until(lambda: copied() > 0, what="a part is copied", seconds=60)
    end(copying)
    assert 0 < copied() < len(found)
    assert project.headrace(*_COPY).wait(120) == 0, project.said()
    assert copied() == len(found)
    assert project.headrace("run", "--profile", "kafka", "--until-caught-up").wait(120) == 0, project.said()
    with PipelineTest(pipeline, partitions=PARTITIONS, folder=data, start=START) as test:
        test.run()
        embedded = given(test)
    assert canonical.differences(expected(found), embedded) == []
    assert canonical.differences(embedded, project.given()) == []
    project.log.close()
