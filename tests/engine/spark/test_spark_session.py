"""What a driver finds in its environment before it starts Spark."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from headrace.engine.spark.session import open_session
from headrace.errors import RefusedError


@pytest.mark.parametrize("master", ["local[2]", "spark://127.0.0.1:1", "yarn", "k8s://https://host:1"])
def test_a_driver_whose_executors_are_sent_nothing_of_it_starts_python_without_an_archive_to_compile(
    master: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ("SPARK_HOME", "SPARK_LOCAL_IP", "PYSPARK_DRIVER_PYTHON")
    for name in names:
        monkeypatch.setenv(name, "")  # what is changed below is put back in the end
        monkeypatch.delenv(name)
    found: dict[str, str] = {}

    def refused(*_: object) -> None:
        found.update({name: os.environ[name] for name in names if name in os.environ})
        raise ValueError("no such cluster")

    monkeypatch.setattr("pyspark.sql.SparkSession.Builder.getOrCreate", refused)
    with pytest.raises(RefusedError, match="no such cluster"):
        open_session("tests", {"spark.master": master})
    assert found["PYSPARK_DRIVER_PYTHON"] == sys.executable
    assert ("SPARK_LOCAL_IP" in found) == (master == "local[2]")
    if master.startswith(("yarn", "k8s")):
        assert "SPARK_HOME" not in found  # what their executors are sent is looked for in it
    else:
        home = Path(found["SPARK_HOME"])
        assert (home / "jars").is_dir()
        assert not (home / "python" / "lib" / "pyspark.zip").exists()


def test_what_stands_in_the_environment_of_a_driver_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPARK_HOME", "/opt/spark")

    def refused(*_: object) -> None:
        raise ValueError("no such cluster")

    monkeypatch.setattr("pyspark.sql.SparkSession.Builder.getOrCreate", refused)
    with pytest.raises(RefusedError):
        open_session("tests", {"spark.master": "spark://127.0.0.1:1"})
    assert os.environ["SPARK_HOME"] == "/opt/spark"
