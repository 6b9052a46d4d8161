"""A topic that is not as the profile says, and what a profile may not say."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from headrace.errors import RefusedError
from headrace.log.kafka import CLIENT_SETTINGS
from log.kafka_streams import config_of, make_topic, ones, opened, take, topic_name

PIPELINE = """
import headrace as hr

pipeline = hr.Pipeline("checked")
pipeline.stream("events", schema="n BIGINT NOT NULL")
pipeline.table("total", "SELECT count(*) AS records FROM events")
"""


def headrace(*words: str, folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "headrace", *words, "--profile", "kafka"]
    environment = {**os.environ, "COLUMNS": "500"}
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=90, check=False
    )


def project(folder: Path, stream: str) -> None:
    (folder / "pipeline.py").write_text(PIPELINE)
    (folder / "headrace.toml").write_text(f"[profiles.kafka]\nstreams.events = {{ {stream} }}\n")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"partitions": 2}, "has 3 partitions, asked for 2: none can be taken away"),
        ({"replication": 2}, "has replication 1, the profile asks for 2"),
        ({"retention": timedelta(hours=2)}, "has retention 1 hour, the profile asks for 2 hours"),
        ({"compression": "zstd"}, "has compression gzip, the profile asks for zstd"),
    ],
    ids=["partitions", "replication", "retention", "compression"],
)
def test_a_topic_that_differs_is_refused_with_both_values(
    kafka_broker: str, options: dict[str, Any], said: str
) -> None:
    topic = topic_name()
    make_topic(kafka_broker, topic, 3, retention_ms="3600000", compression_type="gzip")
    with pytest.raises(RefusedError, match=said), opened(kafka_broker, topic, **options):
        pass


def test_a_topic_that_is_as_the_profile_says_is_taken(kafka_broker: str) -> None:
    topic = topic_name()
    asked = {"partitions": 2, "replication": 1, "retention": timedelta(hours=3), "compression": "zstd"}
    for _ in range(2):
        with opened(kafka_broker, topic, **asked) as log:
            log.append(ones(2))
            assert log.warnings == ()
    with opened(kafka_broker, topic) as log:
        assert take(log, wait=timedelta(seconds=20)).records.num_rows > 0


def test_the_end_of_a_replicated_topic_says_nothing_about_what_replicas_may_not_have_yet(
    kafka_broker: str,
) -> None:
    with opened(kafka_broker, topic_name(), partitions=1) as log:
        begun = log.now()
        assert take(log).idle_since[0] >= begun
        log._topic = replace(log._topic, replication=3)
        assert begun - timedelta(seconds=31) < take(log).idle_since[0] <= log.now() - timedelta(seconds=30)


def test_a_lane_is_kept_as_long_as_its_stream_and_where_a_poller_stands_for_ever(kafka_broker: str) -> None:
    topic = topic_name()
    with opened(kafka_broker, topic, retention=timedelta(hours=48)) as log:
        log.lane("redrive")
        log.lane("polling", latest=True)
    redrive, polling = (config_of(kafka_broker, f"{topic}.{lane}") for lane in ("redrive", "polling"))
    assert (redrive["cleanup.policy"], redrive["retention.ms"]) == ("delete", "172800000")
    assert polling["cleanup.policy"] == "compact"


def test_more_replicas_than_brokers_are_refused(kafka_broker: str) -> None:
    with (
        pytest.raises(RefusedError, match="there are fewer brokers than the replication asks for"),
        opened(kafka_broker, topic_name(), replication=3),
    ):
        pass


def test_a_client_setting_that_may_not_be_given_is_reported_with_those_that_may(tmp_path: Path) -> None:
    client = 'client = { "enable.idempotence" = "false", "linger.ms" = "1" }'
    project(tmp_path, f'log = "kafka", brokers = "127.0.0.1:1", {client}')
    checked = headrace("check", folder=tmp_path)
    assert checked.returncode == 2
    said = " ".join((checked.stdout + checked.stderr).split())
    assert "'enable.idempotence' may not be set" in said
    assert "'linger.ms' may not be set" not in said
    for name in CLIENT_SETTINGS:
        assert name in said


def test_no_setting_that_durability_order_or_secrets_rest_on_may_be_given() -> None:
    for name in ("acks", "enable.idempotence", "isolation.level", "auto.offset.reset", "enable.auto.commit",
                 "sasl.password", "ssl.key.password", "bootstrap.servers", "plugin.library.paths",
                 "enable.ssl.certificate.verification", "debug", "transactional.id"):  # fmt: skip
        assert name not in CLIENT_SETTINGS


@pytest.mark.slow
def test_a_run_says_that_times_of_producers_may_close_windows_early(
    kafka_broker: str, tmp_path: Path
) -> None:
    topic = topic_name()
    make_topic(kafka_broker, topic, message_timestamp_type="CreateTime")
    project(tmp_path, f'log = "kafka", brokers = "{kafka_broker}", topic = "{topic}"')
    ran = headrace("run", "--until-caught-up", folder=tmp_path)
    assert ran.returncode == 0, ran.stderr
    assert "record times are set by producers (CreateTime); windows may close early" in ran.stderr
    lines = (tmp_path / ".headrace/logs/headrace.log").read_text().splitlines()
    [warned] = [line for line in map(json.loads, lines) if line["level"] == "warning"]
    assert "CreateTime" in warned["what"]
