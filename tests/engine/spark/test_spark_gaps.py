"""What Spark does not do is in one table: refused before Spark starts, and printed in the documentation."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

import headrace as hr
from headrace.cli.app import app
from headrace.engine.spark import SparkSettings
from headrace.engine.spark.engine import SparkEngine
from headrace.engine.spark.gaps import GAPS, refuse_gaps
from headrace.errors import ProfileError, RefusedError
from headrace.log.kafka import KafkaSettings, open_kafka_log
from headrace.sql import plan_pipeline
from headrace.store import Store
from log.kafka_streams import make_topic, topic_name

_PAGE = Path(__file__).parents[3] / "docs" / "spark.md"
_PIPELINE = """
import headrace as hr

pipeline = hr.Pipeline("gaps")
pipeline.stream("events", schema="n BIGINT NOT NULL")
pipeline.stream("others", schema="n BIGINT NOT NULL")
"""
_KAFKA = '{ log = "kafka", brokers = "127.0.0.1:1" }'


def test_every_gap_stands_in_the_documentation() -> None:
    page = _PAGE.read_text()
    for gap in GAPS:
        assert f"| {gap.what} | {gap.why} | {gap.instead} | {gap.ever} |" in page
    assert page.count(" never |") + page.count(" not yet |") == len(GAPS)


def test_a_pipeline_without_gaps_passes() -> None:
    refuse_gaps({"events": "kafka"}, {})
    refuse_gaps({"events": "kafka"}, {"spark.submit.deployMode": "client"})


@pytest.mark.parametrize(
    ("events", "others", "words"),
    [
        (_KAFKA, '{ log = "embedded" }', ["stream 'others'", "embedded log"]),
        ('{ log = "embedded" }', '{ log = "embedded" }', ["stream 'events'", "stream 'others'"]),
    ],
)
def test_check_names_every_gap_of_a_pipeline(
    tmp_path: Path, events: str, others: str, words: list[str]
) -> None:
    (tmp_path / "pipeline.py").write_text(_PIPELINE)
    profile = f'[profiles.cluster]\nengine = "spark"\nstreams.events = {events}\nstreams.others = {others}\n'
    (tmp_path / "headrace.toml").write_text(profile)
    for command in ("check", "run"):
        found = CliRunner().invoke(app, [command, "-C", str(tmp_path), "--profile", "cluster"])
        assert isinstance(found.exception, ProfileError)
        assert all(word in str(found.exception) for word in words)


def test_a_driver_that_the_cluster_starts_is_refused_before_spark_and_the_store_are_touched(
    tmp_path: Path,
) -> None:
    (tmp_path / "pipeline.py").write_text(_PIPELINE)
    profile = f'[profiles.cluster]\nengine = "spark"\nstreams.events = {_KAFKA}\nstreams.others = {_KAFKA}\n'
    (tmp_path / "headrace.toml").write_text(profile + 'spark.submit.deployMode = "cluster"\n')
    for command in ("check", "run"):
        found = CliRunner().invoke(app, [command, "-C", str(tmp_path), "--profile", "cluster"])
        assert isinstance(found.exception, ProfileError)
        assert "spark.submit.deployMode" in str(found.exception)
        assert "spark.environment" in str(found.exception)
    assert not (tmp_path / ".headrace").exists()


def test_a_topic_with_the_times_of_producers_is_refused(kafka_broker: str, tmp_path: Path) -> None:
    topic = topic_name()
    make_topic(kafka_broker, topic, message_timestamp_type="CreateTime")
    pipeline = hr.Pipeline("gaps")
    pipeline.stream("events", schema="n BIGINT NOT NULL")
    plan = plan_pipeline(pipeline)
    log = open_kafka_log(KafkaSettings(brokers=kafka_broker, topic=topic), "events")
    store = Store.open(tmp_path / "store.duckdb", plan, identities={"events": log.identity})
    try:
        with pytest.raises(RefusedError, match="LogAppendTime"):
            SparkEngine(plan, {"events": log}, store, spark=SparkSettings())
    finally:
        store.close()
        log.close()


_WRITTEN = """
import headrace as hr

pipeline = hr.Pipeline("gaps")
pipeline.stream("events", schema="n BIGINT NOT NULL")
pipeline.stream("others", schema="n BIGINT NOT NULL")
pipeline.table("plain", "SELECT n FROM events")
pipeline.table("seen", "SELECT n FROM others")
pipeline.table("keyed", "SELECT n FROM events", key="n")
pipeline.table("kept", "SELECT n FROM events", keep="1 day")
pipeline.table("total", "SELECT count(*) AS records FROM events")
pipeline.table("view", "SELECT max(n) AS most FROM seen")
pipeline.table("asked", "SELECT n FROM events")
pipeline.alert("many", "SELECT count(*) > 3 FROM Asked")
pipeline.panel("all of them", "WITH a AS (FROM asked) SELECT count(*) AS n FROM a")
"""
_LAKE = 'replicas.lake = {{ kind = "{}", {}, tables = {} }}\n'
_PLAIN = _LAKE.format("delta", 'path = "lake", mode = "update"', '["plain"]')


def _write(folder: Path, *lines: str, engine: str = 'engine = "spark"\n') -> None:
    (folder / "pipeline.py").write_text(_WRITTEN)
    profile = f"[profiles.cluster]\n{engine}streams.events = {_KAFKA}\nstreams.others = {_KAFKA}\n"
    (folder / "headrace.toml").write_text(profile + "".join(lines))


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        (('spark.rows_by_executors = ["plian"]\n', _PLAIN), "did you mean 'plain'?"),
        (('spark.rows_by_executors = ["plain"]\n',), "no replica takes table 'plain'"),
        (('spark.rows_by_executors = ["keyed"]\n', _PLAIN.replace("plain", "keyed")), "GROUP BY or `key=`"),
        (('spark.rows_by_executors = ["total"]\n', _PLAIN.replace("plain", "total")), "GROUP BY or `key=`"),
        (('spark.rows_by_executors = ["view"]\n', _PLAIN.replace("plain", "view")), "or a view"),
        (('spark.rows_by_executors = ["kept"]\n', _PLAIN.replace("plain", "kept")), "`keep=`"),
        (('spark.rows_by_executors = ["seen"]\n', _PLAIN.replace("plain", "seen")), "'seen', view 'view'"),
        (
            ('spark.rows_by_executors = ["asked"]\n', _PLAIN.replace("plain", "asked")),
            "'asked', panel 'all of",
        ),
        (
            ('spark.rows_by_executors = ["plain"]\n', _PLAIN, _PLAIN.replace("lake", "pond")),
            "replica 'pond', table 'plain'",
        ),
        (
            ('spark.rows_by_executors = ["plain"]\n', _LAKE.format("delta", 'uri = "s3://b/l"', '["plain"]')),
            "no folder (`path`)",
        ),
        (
            ('spark.rows_by_executors = ["plain"]\n', _LAKE.format("stdout", 'linger = "1s"', '["plain"]')),
            "no folder (`path`)",
        ),
    ],
)
def test_what_executors_cannot_write_is_refused_with_its_gap(
    tmp_path: Path, lines: tuple[str, ...], words: str
) -> None:
    _write(tmp_path, *lines)
    for command in ("check", "run"):
        found = CliRunner().invoke(app, [command, "-C", str(tmp_path), "--profile", "cluster"])
        assert isinstance(found.exception, ProfileError)
        assert words in str(found.exception)
    assert not (tmp_path / ".headrace").exists()


def test_rows_that_executors_can_write_pass_and_the_local_engine_does_not_ask(tmp_path: Path) -> None:
    for engine in ('engine = "spark"\n', ""):
        for kind in ("delta", "parquet"):
            lake = _LAKE.format(kind, 'path = "lake", mode = "update"', '["plain", "total", "keyed"]')
            _write(tmp_path, 'spark.rows_by_executors = ["plain"]\n', lake, engine=engine)
            found = CliRunner().invoke(app, ["check", "-C", str(tmp_path), "--profile", "cluster"])
            assert found.exit_code == 0, found.output


def test_a_replica_whose_rows_executors_wrote_is_not_told_to_copy_them_again(tmp_path: Path) -> None:
    _write(tmp_path, 'spark.rows_by_executors = ["plain"]\n', _PLAIN)
    for action in ("rebuild", "adopt"):
        words = ["replicas", action, "lake", "-C", str(tmp_path), "--profile", "cluster"]
        found = CliRunner().invoke(app, words)
        assert isinstance(found.exception, RefusedError), found.output
        assert "nowhere else" in str(found.exception)
