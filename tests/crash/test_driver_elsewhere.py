"""A driver that starts on another machine, which has the project and not the store."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from crash_pipeline import append_table, arrivals
from kafka_project import end
from spark_project import PASSES_S_MAX, SparkProject

from servers.spark import SPARK_CONF

_RECORDS = 3_000
_RUN = ("run", "--profile", "cluster", "--until-caught-up")


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_a_driver_without_its_store_says_so_and_computes_everything_again_beside_an_old_checkpoint(
    kafka_broker: str, tmp_path: Path
) -> None:
    here, elsewhere = tmp_path / "here", tmp_path / "elsewhere"
    here.mkdir()
    elsewhere.mkdir()
    conf = {**SPARK_CONF, "spark.checkpoint": (tmp_path / "checkpoint").as_uri()}
    sent = arrivals(_RECORDS, seed=15)
    with SparkProject(here, kafka_broker, conf, 'page.serve = "off"\n') as project:
        project.log.append(append_table(sent[: _RECORDS // 2]))
        assert project.headrace(*_RUN).wait(PASSES_S_MAX) == 0, project.said()
        driver = project.headrace(*_RUN[:-1])
        project.log.append(append_table(sent[_RECORDS // 2 :]))
        read = project.passes(driver, _RECORDS // 2 + 1)
        end(driver)
        assert [*(tmp_path / "checkpoint").glob("headrace-*/run-*/offsets/[0-9]*")]
        for name in ("pipeline.py", "headrace.toml"):
            shutil.copy(here / name, elsewhere)
        project.folder = elsewhere
        assert project.headrace(*_RUN).wait(PASSES_S_MAX) == 0, project.said()
        said = " ".join(project.said().split())
        assert "stream 'events': a run with another store has read" in said
        assert "this store is new, and everything is computed again from what the log holds" in said
        told = int(said.partition("another store has read ")[2].split()[0].replace(",", ""))
        assert read <= told <= _RECORDS
        project.check(sent)
