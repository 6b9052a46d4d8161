"""A profile that runs on Spark is refused for a changed query before Spark is looked for."""

from __future__ import annotations

import uuid
from pathlib import Path

import pytest

from headrace.cli.app import run

PROFILES = """
[profiles.kafka]
store.path = ".headrace/store.duckdb"
streams.readings = {{ log = "kafka", brokers = "{brokers}", topic = "{topic}" }}

[profiles.cluster]
engine = "spark"
spark.master = "spark://127.0.0.1:1"
store.path = ".headrace/store.duckdb"
streams.readings = {{ log = "kafka", brokers = "{brokers}", topic = "{topic}" }}
"""


@pytest.mark.server
def test_a_changed_query_is_named_with_what_rebuilds_it_before_spark_is_started(
    kafka_broker: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, started = tmp_path / "weather", list[str]()
    assert run(["new", str(folder)]) == 0
    topic = f"readings-{uuid.uuid4().hex[:10]}"
    (folder / "headrace.toml").write_text(PROFILES.format(brokers=kafka_broker, topic=topic))
    here = ["-C", str(folder), "--profile"]
    assert run(["produce", "readings", str(folder / "readings.ndjson"), *here, "kafka"]) == 0
    assert run(["run", "--until-caught-up", *here, "kafka"]) == 0
    path = folder / "pipeline.py"
    path.write_text(
        path.read_text().replace("(measured_at, '1 minute')", "(measured_at, '1 hour')")
        + '\n\npipeline.table("by_sensor", "SELECT sensor, count(*) AS n FROM readings GROUP BY sensor")\n'
    )

    def start(name: str, *_: object) -> None:
        started.append(name)
        raise AssertionError("Spark was started")

    monkeypatch.setattr("headrace.engine.spark.engine.start_spark", start)
    capsys.readouterr()
    assert run(["run", "--until-caught-up", *here, "cluster"]) == 1
    said = capsys.readouterr().err
    assert "'by_minute'" in said and "headrace run --rebuild by_minute" in said
    assert "by_sensor" not in said  # it is new, and keeps what others have
    assert started == []
    path.write_text(path.read_text().replace("(measured_at, '1 hour')", "(measured_at, '1 minute')"))
    assert run(["run", "--until-caught-up", *here, "cluster"]) != 0
    assert started == ["weather"]
