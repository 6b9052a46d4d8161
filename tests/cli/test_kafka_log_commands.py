"""The commands of the log and of dead letters on a project that is bound to a real broker."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
import uuid
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pytest
from confluent_kafka.admin import AdminClient

from headrace.cli.app import run
from headrace.log import APPEND_SCHEMA
from headrace.log.kafka import KafkaSettings, open_kafka_log
from headrace.operate import Runtime, load_project, open_log
from servers.guard import wait_until

PROFILES = """
[profiles.local]

[profiles.kafka]
store.path = ".headrace/kafka.duckdb"
[profiles.kafka.streams.readings]
log = "kafka"
brokers = "{brokers}"
topic = "{topic}"
dead_letter_topic = "{letters}"

[profiles.moved]
store.path = ".headrace/moved.duckdb"
streams.readings = {{ log = "kafka", brokers = "{brokers}", topic = "{topic}-moved", record_time = "header" }}

[profiles.late]
streams.readings = {{ log = "kafka", brokers = "{brokers}", topic = "{topic}-late" }}
"""


def ok(*words: str) -> None:
    assert run(words) == 0


class Project:
    def __init__(self, folder: Path, brokers: str) -> None:
        self.folder, self.brokers = folder, brokers
        self.topic = f"readings-{uuid.uuid4().hex[:10]}"
        self.letters = f"{self.topic}-letters"
        ok("new", str(folder))
        text = PROFILES.format(brokers=brokers, topic=self.topic, letters=self.letters)
        (folder / "headrace.toml").write_text(text)
        self.here = ("-C", str(folder))
        self.on_kafka = (*self.here, "--profile", "kafka")

    def put(self, value: bytes, address: str) -> None:
        log = open_kafka_log(KafkaSettings(brokers=self.brokers, topic=self.letters), "letters")
        header = {"key": "headrace.dead-letter", "value": address.encode()}
        row = {**dict.fromkeys(APPEND_SCHEMA.names), "value": value, "headers": [header]}
        log.append(pa.Table.from_pylist([row], schema=APPEND_SCHEMA))
        log.close()

    def put_broken(self, value: bytes, key: bytes) -> None:
        log = open_kafka_log(KafkaSettings(brokers=self.brokers, topic=self.topic), "readings")
        row = {**dict.fromkeys(APPEND_SCHEMA.names), "key": key, "value": value}
        log.append(pa.Table.from_pylist([row], schema=APPEND_SCHEMA))
        log.close()

    def letters_in_topic(self) -> list[dict[str, str]]:
        from headrace.operate.log_tools import From, peek

        log = open_kafka_log(KafkaSettings(brokers=self.brokers, topic=self.letters), "letters")
        found = [
            {header["key"]: header["value"] for header in each.facts["headers"]}
            | {"key": each.facts["key"], "value": each.pretty()}
            for each in peek(log, From(beginning=True))
        ]
        log.close()
        return found


@pytest.fixture
def project(kafka_broker: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Project:
    made = Project(tmp_path / "weather", kafka_broker)
    capsys.readouterr()
    return made


def test_who_only_looks_makes_no_topic(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["log", "describe"], ["log", "peek", "readings"]):
        assert run([*words, *project.on_kafka]) == 1
        assert "there is no such topic yet" in capsys.readouterr().err
    admin = AdminClient({"bootstrap.servers": project.brokers, "log_level": 0})
    assert project.topic not in admin.list_topics(timeout=10).topics


def test_dead_letters_go_to_their_topic_and_corrected_ones_come_back(
    project: Project, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = [
        b'{"sensor": "roof", "measured_at": "2026-01-01T12:00:05Z", "celsius": %d}' % celsius
        for celsius in (20, 999, 998)
    ]
    (tmp_path / "some.ndjson").write_bytes(b"\n".join(lines))
    ok("produce", "readings", str(tmp_path / "some.ndjson"), *project.on_kafka)
    project.put_broken(b"no json", b"of the roof")
    ok("run", "--until-caught-up", *project.on_kafka)
    letters = project.letters_in_topic()
    assert sorted(each["headrace.outcome"] for each in letters) == ["malformed", "rejected", "rejected"]
    assert {each["__connect.errors.topic"] for each in letters} == {project.topic}
    broken = next(each for each in letters if each["headrace.outcome"] == "malformed")
    assert (broken["key"], broken["value"]) == ("of the roof", "no json")
    rejected = [each for each in letters if each["headrace.rule"] == "expect:plausible"]
    assert len(rejected) == 2
    ok("run", "--until-caught-up", *project.on_kafka)
    assert len(project.letters_in_topic()) == 3  # a later run sends none again

    redrive = ("dead-letters", "redrive", "--from-topic", project.letters, *project.on_kafka)
    capsys.readouterr()
    ok(*redrive, "--yes")
    assert "3 as they were" in capsys.readouterr().out
    address = rejected[0]["headrace.dead-letter"]
    project.put(lines[1].replace(b"999", b"9").replace(b"998", b"9"), address)
    project.put(b"{}", "readings:0:4711")
    ok(*redrive, "--dry-run")
    assert "1 record would be given back" in capsys.readouterr().out
    ok(*redrive, "--yes")
    assert f"{address}  rejected" in capsys.readouterr().out
    ok(*redrive, "--yes")
    assert "no corrected record that was not given back before" in capsys.readouterr().out
    ok("run", "--until-caught-up", *project.on_kafka)
    capsys.readouterr()
    ok("ledger", "--json", *project.on_kafka)
    document = json.loads(capsys.readouterr().out)
    assert document["balanced"] is True
    assert document["streams"]["readings"]["outcomes"]["accepted"] == 1
    ok("sql", "SELECT highest FROM by_minute", "--format", "csv", *project.on_kafka)
    assert capsys.readouterr().out == "highest\n9.0\n"
    assert run(["dead-letters", "redrive", "--from-topic", "x", *project.here]) == 2
    assert "on which brokers" in capsys.readouterr().err
    assert run([*redrive, "--set", "a=1"]) == 2


def test_a_log_is_moved_to_kafka_and_answers_the_same(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    readings = str(project.folder / "readings.ndjson")
    ok("produce", "readings", readings, "--record-time", "event", *project.here)
    ok("run", "--until-caught-up", *project.here)
    copy = ("log", "copy", "--from-profile", "local", "--to-profile")
    assert run([*copy, "late", *project.here]) == 1
    assert 'record_time = "header"' in capsys.readouterr().err
    ok(*copy, "moved", *project.here)
    assert "readings: 5 records copied" in capsys.readouterr().out
    ok(*copy, "moved", "--json", *project.here)
    [report] = json.loads(capsys.readouterr().out)
    assert (report["copied"], report["copied_before"], report["complete"]) == (0, 5, True)
    moved = (*project.here, "--profile", "moved")
    ok("run", "--until-caught-up", *moved)
    capsys.readouterr()
    answers = []
    for where in (project.here, moved):
        ok("sql", "FROM by_minute ORDER BY ALL", "--format", "csv", *where)
        answers.append(capsys.readouterr().out)
    assert answers[0] == answers[1]
    assert len(answers[0].splitlines()) > 2
    ok("log", "peek", "readings", "--from-beginning", "-n", "1", "--json", *moved)
    shown = json.loads(capsys.readouterr().out)
    assert shown["record_time"] == "2026-01-01T12:00:05+00:00"
    ok("log", "describe", "readings", "--json", *moved)
    document = json.loads(capsys.readouterr().out)
    assert document["records"] == 5
    assert document["settings"]["record_time"] == "header"
    assert {each["reader"]: each["lag_records"] for each in document["readers"]} == {"engine": 0}
    ok("status", "--json", *moved)
    status = json.loads(capsys.readouterr().out)
    assert status["log_problem"] == ""
    assert status["streams"]["readings"]["lag_records"] == 0


def test_status_tells_how_far_behind_a_topic_a_run_stands_in_records_and_seconds(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    readings = str(project.folder / "readings.ndjson")
    ok("produce", "readings", readings, *project.on_kafka)
    ok("run", "--until-caught-up", *project.on_kafka)
    ok("produce", "readings", readings, *project.on_kafka)
    ok("produce", "readings", readings, *project.on_kafka)
    capsys.readouterr()
    ok("status", "--json", *project.on_kafka)
    document = json.loads(capsys.readouterr().out)
    stream = document["streams"]["readings"]
    lines = [line for line in stream["partitions"] if line["lane"] == "main"]
    assert sum(line["lag_records"] for line in lines) == stream["lag_records"] == 10
    for line in lines:
        assert line["end"] - line["position"] == line["lag_records"]
        assert (line["lag_seconds"] > 0) == (line["lag_records"] > 0)
    assert 0 < stream["lag_seconds"] < 600
    assert any(line["frontier"] for line in lines)
    assert document["throughput"]["records"] == 5
    assert document["log_problem"] == ""


def test_a_run_that_finds_no_store_beside_a_topic_that_was_read_says_so_and_computes_all_of_it_again(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    def answers() -> str:
        capsys.readouterr()
        ok("sql", "FROM by_minute ORDER BY ALL", "--format", "csv", *project.on_kafka)
        return capsys.readouterr().out

    at = (datetime.now(UTC) + timedelta(seconds=20)).isoformat()  # neither late nor too far ahead
    lines = [json.dumps({"sensor": name, "measured_at": at, "celsius": 1}) for name in "abcde"]
    (project.folder / "now.ndjson").write_text("\n".join(lines))
    ok("produce", "readings", str(project.folder / "now.ndjson"), *project.on_kafka)
    ok("run", "--until-caught-up", *project.on_kafka)
    assert "another store" not in capsys.readouterr().err
    before = answers()
    for file in (project.folder / ".headrace").glob("kafka.duckdb*"):
        file.unlink()
    ok("run", "--until-caught-up", *project.on_kafka)
    assert "a run with another store has read 5 of its records" in capsys.readouterr().err
    assert answers() == before
    assert len(before.splitlines()) == 6


def test_a_generator_writes_to_the_topic_at_its_rate_and_a_run_reads_it(
    kafka_broker: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shop = tmp_path / "shop"
    ok("new", "--blueprint", "commerce", str(shop))
    stream = f'log = "kafka", brokers = "{kafka_broker}", topic = "shop-{uuid.uuid4().hex[:10]}"'
    (shop / "headrace.toml").write_text(f"[profiles.kafka]\nstreams.events = {{ {stream} }}\n")
    here = ("-C", str(shop), "--profile", "kafka")
    began = time.monotonic()
    ok("generate", "commerce", "--rate", "200", "--count", "300", *here)
    assert time.monotonic() - began > 1
    ok("run", "--until-caught-up", *here)
    capsys.readouterr()
    ok("ledger", "--json", *here)
    document = json.loads(capsys.readouterr().out)
    assert document["balanced"] is True
    assert sum(document["streams"]["events"]["outcomes"].values()) == 300


@pytest.mark.slow
def test_a_generator_in_a_process_of_its_own_writes_to_the_topic_until_ctrl_c(
    kafka_broker: str, tmp_path: Path
) -> None:
    shop = tmp_path / "shop"
    ok("new", "--blueprint", "commerce", str(shop))
    stream = f'log = "kafka", brokers = "{kafka_broker}", topic = "shop-{uuid.uuid4().hex[:10]}"'
    (shop / "headrace.toml").write_text(f"[profiles.kafka]\nstreams.events = {{ {stream} }}\n")
    log = open_log(load_project(shop, profile="kafka"), "events")

    def written() -> int:
        return sum(each.end for each in log.partitions())

    words = ["generate", "commerce", "--profile", "kafka", "--rate", "300"]
    with subprocess.Popen(
        [sys.executable, "-m", "headrace", *words], cwd=shop, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            wait_until(lambda: written() > 100, what="events are in the topic", seconds=60)
            process.send_signal(signal.SIGINT)
            said, _ = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == 0, said
    (made,) = re.findall(r"^([\d,]+) events in ", said, re.MULTILINE)
    assert written() == int(made.replace(",", ""))
    log.close()


def test_status_says_that_spark_is_being_started(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    path = project.folder / "headrace.toml"
    cluster = PROFILES.format(brokers=project.brokers, topic=project.topic, letters=project.letters)
    cluster = cluster.replace("[profiles.kafka]\n", '[profiles.kafka]\nengine = "spark"\n')
    said = "Spark is being started"
    for text in (cluster, path.read_text()):
        path.write_text(text)
        runtime = Runtime.open(load_project(project.folder, profile="kafka"))
        try:
            ok("status", *project.here)
            assert (said in capsys.readouterr().out) == (text is cluster)
        finally:
            runtime.close()
    ok("status", *project.on_kafka)
    assert said not in capsys.readouterr().out
