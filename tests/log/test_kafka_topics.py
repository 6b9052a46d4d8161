"""A topic that is not as the profile says, and what a profile may not say."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaException, TopicPartition
from raw_fetch import CODECS, fetch_codecs

from headrace.errors import RefusedError
from headrace.log.kafka import CLIENT_SETTINGS, KafkaLog, KafkaSettings, open_kafka_log
from log.kafka_streams import ONES, config_of, make_topic, ones, opened, take, topic_name
from servers.guard import wait_until

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
    has = config_of(kafka_broker, topic)
    assert (has["retention.ms"], has["compression.type"]) == ("10800000", "zstd")


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


def test_a_lane_that_several_ask_for_at_once_is_one_that_all_of_them_use(kafka_broker: str) -> None:
    start = threading.Barrier(4, timeout=60)
    with opened(kafka_broker, topic_name()) as log, ThreadPoolExecutor(4) as threads:

        def ask(_: int) -> KafkaLog:
            start.wait()
            return log.lane("redrive")

        lanes = set(threads.map(ask, range(4)))
        assert lanes == {log.lane("redrive")}


def test_a_log_that_is_closed_opens_no_lane(kafka_broker: str) -> None:
    with opened(kafka_broker, topic_name()) as log:
        log.close()
        with pytest.raises(RefusedError, match="the log is closed"):
            log.lane("redrive")


def test_a_topic_that_nobody_asked_anything_of_has_a_day_and_the_times_of_the_broker(
    kafka_broker: str,
) -> None:
    topic = topic_name()
    with opened(kafka_broker, topic) as log:
        assert len(log.partitions()) == 3
    has = config_of(kafka_broker, topic)
    assert (has["retention.ms"], has["cleanup.policy"]) == ("86400000", "delete")
    assert (has["message.timestamp.type"], has["compression.type"]) == ("LogAppendTime", "lz4")


@pytest.mark.parametrize(
    ("compression", "kept"),
    [("gzip", "gzip"), ("snappy", "snappy"), ("lz4", "lz4"), ("zstd", "zstd"), ("none", "uncompressed")],
)
def test_records_are_packed_as_the_profile_says(kafka_broker: str, compression: str, kept: str) -> None:
    topic = topic_name()
    with opened(kafka_broker, topic, partitions=1, compression=compression) as log:
        log.append(ones(500))
        assert take(log, wait=timedelta(seconds=20)).records.column("value").to_pylist() == [ONES] * 500
    assert config_of(kafka_broker, topic)["compression.type"] == kept
    assert set(fetch_codecs(kafka_broker, topic)) == {compression}


@pytest.mark.parametrize("compression", CODECS)
def test_records_are_sent_packed_also_where_the_topic_leaves_them_as_they_come(
    kafka_broker: str, compression: str
) -> None:
    topic = topic_name()
    make_topic(kafka_broker, topic, compression_type="producer")
    with opened(kafka_broker, topic, compression=compression) as log:
        log.append(ones(500))
    assert set(fetch_codecs(kafka_broker, topic)) == {compression}


def test_positions_stand_in_a_consumer_group_where_kafkas_own_tools_look(kafka_broker: str) -> None:
    topic = topic_name()

    def in_group(group: str) -> dict[int, int]:
        client = Consumer({"bootstrap.servers": kafka_broker, "group.id": group, "log_level": 0})
        try:
            found = client.committed([TopicPartition(topic, number) for number in (0, 1)], timeout=20)
        except KafkaException:  # a broker that was just started makes its topic of groups first
            found = []
        finally:
            client.close()
        return {place.partition: place.offset for place in found if place.offset >= 0}

    with opened(kafka_broker, topic, partitions=2) as log:
        log.append(ones(20))
        log.publish("engine", {0: 4, 1: 10})
        log.publish("other", {0: 1})
        wait_until(lambda: in_group(f"headrace-{topic}.other") == {0: 1}, what="the other one is seen")
        wait_until(lambda: in_group(f"headrace-{topic}") == {0: 4, 1: 10}, what="the engine is seen")
    with opened(kafka_broker, topic, group=f"mine-{topic}") as log:
        log.publish("engine", {0: 7})
        wait_until(lambda: in_group(f"mine-{topic}") == {0: 7}, what="the group of the profile is used")


@contextmanager
def somebody_in_group(brokers: str, topic: str, group: str) -> Iterator[None]:
    """While open, the brokers let nobody else set the positions of the group: it has a member."""
    client = Consumer({"bootstrap.servers": brokers, "group.id": group, "enable.auto.commit": False})
    client.subscribe([topic])

    def joined() -> bool:
        client.poll(0.1)
        return bool(client.assignment())

    try:
        wait_until(joined, what="the member is in the group")
        yield
    finally:
        client.close()


def test_positions_that_brokers_refuse_for_a_moment_come_with_the_next_ones(kafka_broker: str) -> None:
    topic = topic_name()
    with opened(kafka_broker, topic, partitions=2) as log:
        with somebody_in_group(kafka_broker, topic, f"headrace-{topic}"):
            log.publish("engine", {0: 3, 1: 1})
            assert log.readers("engine") == {}  # it was tried, and refused
        log.publish("engine", {0: 5})
        assert log.readers("engine") == {"engine": {0: 5, 1: 1}}


def test_positions_that_brokers_refused_are_tried_again_when_the_log_is_closed(kafka_broker: str) -> None:
    topic = topic_name()
    with opened(kafka_broker, topic, partitions=2) as log:
        with somebody_in_group(kafka_broker, topic, f"headrace-{topic}"):
            log.publish("engine", {0: 3})
            log.publish("copy", {1: 1})
            assert log.readers("engine") == {}
        log.close()
    with opened(kafka_broker, topic) as again:
        assert again.readers() == {"engine": {0: 3}, "copy": {1: 1}}


def commits_of(brokers: str, group: str) -> int:
    """Return how many commits of a group the brokers hold."""
    client = Consumer({"bootstrap.servers": brokers, "group.id": topic_name(), "enable.partition.eof": True})
    numbers = client.list_topics("__consumer_offsets", timeout=10).topics["__consumer_offsets"].partitions
    client.assign([TopicPartition("__consumer_offsets", number, OFFSET_BEGINNING) for number in numbers])
    found, ended = 0, set()
    while len(ended) < len(numbers):
        message = client.poll(20)
        assert message is not None, "the brokers gave no end"
        if message.error() is not None:
            ended.add(message.partition())
        else:
            found += group.encode() in message.key()
    client.close()
    return found


def test_positions_of_many_epochs_are_one_commit_and_who_asks_sees_the_newest(kafka_broker: str) -> None:
    topic = topic_name()
    with opened(kafka_broker, topic, partitions=1) as log:
        began = time.monotonic()
        for at in range(500):
            log.publish("engine", {0: at})
            if at % 10 == 0:
                log.append(ones(1))  # some time passes, as between epochs
        assert log.readers("engine") == {"engine": {0: 499}}
        seconds = time.monotonic() - began
    # The first one, one a second, and the one that was asked for.
    assert 1 <= commits_of(kafka_broker, f"headrace-{topic}") <= 2 + seconds


def test_a_log_ends_whose_positions_nobody_takes(kafka_broker: str) -> None:
    topic = topic_name()
    with (
        opened(kafka_broker, topic, partitions=1) as log,
        somebody_in_group(kafka_broker, topic, f"headrace-{topic}"),
    ):
        log.publish("engine", {0: 3})
        log.close()
        assert log._groups._thread is not None and not log._groups._thread.is_alive()


def test_a_lane_that_keeps_its_records_for_too_short_is_mended_and_a_longer_one_is_left(
    kafka_broker: str,
) -> None:
    topic, day, week = topic_name(), "86400000", "604800000"

    def kept(lane: str) -> str:
        return config_of(kafka_broker, f"{topic}.{lane}")["retention.ms"]

    with opened(kafka_broker, topic, retention=timedelta(hours=48)) as log:
        for lane, held in {"longer": week, "looked": day, "redrive": day, "polling": day}.items():
            make_topic(kafka_broker, f"{topic}.{lane}", retention_ms=held)  # as an earlier version did
        looking = open_kafka_log(KafkaSettings(brokers=kafka_broker, topic=topic), "events", make=False)
        looking.lane("looked")
        looking.close()
        log.lane("longer")
        log.lane("redrive")
        log.lane("polling", latest=True)
        wait_until(lambda: kept("redrive") == "172800000", what="the lane is kept as long as its stream")
        wait_until(lambda: kept("polling") == "-1", what="the place of a poller is kept for ever")
        assert (kept("longer"), kept("looked")) == (week, day)
        assert log.warnings == ()


def test_a_topic_that_keeps_its_records_for_ever_is_said_so_whatever_number_stands_for_it(
    kafka_broker: str,
) -> None:
    for number in ("-1", "9223372036854775807"):
        topic = topic_name()
        make_topic(kafka_broker, topic, retention_ms=number)
        with (
            pytest.raises(RefusedError, match="has retention for ever, the profile asks for 2 hours"),
            opened(kafka_broker, topic, retention=timedelta(hours=2)),
        ):
            pass


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
