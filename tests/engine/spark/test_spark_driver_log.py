"""Spark's own words: pages of them, in a file whose place is told, and not on the terminal of a run."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from headrace.engine.spark.driver_log import conf_with_log

_OPTIONS = "spark.driver.extraJavaOptions"

_FAILS = """
import sys
from pathlib import Path

from headrace.engine.spark import SparkSettings
from headrace.engine.spark.engine import start_spark
from headrace.engine.spark.session import error_of_spark, register_source

session = start_spark("asked", SparkSettings(conf={"spark.master": "local[1]"}), Path(sys.argv[1]))
register_source(session)
try:
    session.sparkContext.parallelize([0], 1).map(lambda n: 1 // n).collect()
except Exception as error:
    print(type(error_of_spark(str(error))).__name__)
session.stop()
"""


@pytest.mark.slow
def test_what_spark_says_of_a_job_that_failed_is_in_a_file_and_not_on_the_terminal(tmp_path: Path) -> None:
    store = tmp_path / "a shop's" / "store.duckdb"
    store.parent.mkdir()
    done = subprocess.run(
        [sys.executable, "-c", _FAILS, str(store)], capture_output=True, text=True, timeout=240, check=True
    )
    assert done.stdout == "InternalError\n"
    assert "ZeroDivisionError" not in done.stderr
    assert "\tat " not in done.stderr
    said = (store.parent / "store.duckdb.spark" / "spark.log").read_text(encoding="utf-8")
    assert "ZeroDivisionError" in said
    assert "\tat org.apache.spark" in said


def test_what_somebody_has_set_of_java_stays_and_settings_of_log4j_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SPARK_CONF_DIR", raising=False)
    options = conf_with_log({_OPTIONS: "-Xss9m"}, tmp_path)[_OPTIONS]
    assert options == f'-Xss9m "-Dlog4j2.configurationFile={tmp_path}/log4j2.properties"'
    assert conf_with_log({}, tmp_path)[_OPTIONS].startswith("-Xss4m ")
    own = {_OPTIONS: "-Dlog4j2.configurationFile=mine.properties"}
    assert conf_with_log(own, tmp_path) == own
    (tmp_path / "log4j2.xml").touch()
    monkeypatch.setenv("SPARK_CONF_DIR", str(tmp_path))
    assert conf_with_log({}, tmp_path) == {}
