"""Spark's checkpoint where users keep it: the notes lie there, and a run that is killed goes on exactly."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from crash_pipeline import append_table, arrivals
from kafka_project import end
from spark_project import PASSES_S_MAX, SparkProject

from servers.hadoop import Hadoop, hadoop, hadoop_here
from servers.jars import ServerMissing
from servers.plugin import server_missing
from servers.s3 import S3_KEY, S3_REGION, S3_SECRET, S3Server, s3_server
from servers.spark import SPARK_CONF, jars_for_client

_RECORDS = 4_000
_KILLS = 2
_RUN = ("run", "--profile", "cluster", "--until-caught-up")
_NOTES = re.compile(r"notes/(?P<store>headrace-[^/]+)/(?P<run>run-[^/]+)/(?P<kind>offsets|commits)/\d+")


@pytest.fixture
def client_of_s3() -> Path:
    try:
        return jars_for_client("hadoop-aws")
    except ServerMissing as missing:
        server_missing(missing)


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[S3Server]:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", S3_KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", S3_SECRET)
    with s3_server() as server:
        yield server


@pytest.fixture
def hdfs() -> Iterator[Hadoop]:
    try:
        hadoop_here()
    except ServerMissing as missing:
        server_missing(missing)
    with hadoop() as server:
        yield server


def kill_and_go_on(project: SparkProject) -> None:
    """Kill drivers at some moments; the next ones lose nothing and repeat nothing."""
    sent = arrivals(_RECORDS, seed=14)
    project.log.append(append_table(sent))
    chance = random.Random(14)
    for kill in range(_KILLS):
        driver = project.headrace(*_RUN)
        share = len(sent) // (_KILLS + 1)
        project.passes(driver, kill * share + 1 + chance.randrange(share))
        end(driver)
    assert project.headrace(*_RUN).wait(PASSES_S_MAX) == 0, project.said()
    project.check(sent)


def check_notes(names: list[str]) -> None:
    """Only the last run's notes are left, and they are whole."""
    found = [match for name in names if (match := _NOTES.search(name))]
    assert {match["kind"] for match in found} == {"offsets", "commits"}, names
    assert len({(match["store"], match["run"]) for match in found}) == 1, names


@pytest.mark.soak
@pytest.mark.server
@pytest.mark.timeout(1800)
def test_a_run_whose_checkpoint_lies_in_s3_is_killed_and_goes_on_exactly(
    kafka_broker: str, client_of_s3: Path, s3: S3Server, tmp_path: Path
) -> None:
    bucket = s3.make_bucket()
    conf = {
        **SPARK_CONF,
        "spark.checkpoint": f"s3a://{bucket}/notes",
        "spark.jars": ",".join(map(str, sorted(client_of_s3.glob("*.jar")))),
        "spark.hadoop.fs.s3a.endpoint": s3.endpoint,
        "spark.hadoop.fs.s3a.endpoint.region": S3_REGION,
        "spark.hadoop.fs.s3a.path.style.access": "true",
    }
    with SparkProject(tmp_path, kafka_broker, conf) as project:
        kill_and_go_on(project)
        check_notes(s3.keys(bucket))


@pytest.mark.soak
@pytest.mark.server
@pytest.mark.timeout(1800)
def test_a_run_whose_checkpoint_lies_in_hdfs_is_killed_and_goes_on_exactly(
    kafka_broker: str, hdfs: Hadoop, tmp_path: Path
) -> None:
    conf = {**SPARK_CONF, "spark.checkpoint": f"{hdfs.files}/notes"}
    with SparkProject(tmp_path, kafka_broker, conf) as project:
        kill_and_go_on(project)
        check_notes(hdfs.names())
