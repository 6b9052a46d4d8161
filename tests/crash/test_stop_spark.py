"""Ctrl-C at a run on Spark: it ends with its own words, and none of a library's."""

from __future__ import annotations

from pathlib import Path

import pytest
from crash_pipeline import append_table, arrivals
from spark_project import PASSES_S_MAX, SparkProject

from servers.spark import SPARK_CONF

_STOPS = 4
_A_RUN = 200


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_ctrl_c_ends_a_run_with_its_own_words_at_whatever_moment_it_comes(
    kafka_broker: str, tmp_path: Path
) -> None:
    # Between micro-batches the query looks for records all the time.
    conf = {**SPARK_CONF, "spark.sql.streaming.pollingDelay": "1ms"}
    with (
        SparkProject(tmp_path, kafka_broker, conf, 'page.serve = "off"\n') as project,
        project.log.load(),  # what is appended later was recorded before the runs reached the end
    ):
        sent = arrivals(_STOPS * _A_RUN, seed=13)
        for stop in range(_STOPS):
            project.log.append(append_table(sent[stop * _A_RUN : (stop + 1) * _A_RUN]))
            before = len(project.said()) if stop else 0
            driver = project.on_a_terminal("run", "--profile", "cluster")
            # Half of them are told in the middle of their work, half of them while they wait for more.
            project.passes(driver, stop * _A_RUN + (_A_RUN if stop % 2 else 1))
            project.press_ctrl_c(driver)
            assert driver.wait(PASSES_S_MAX) == 0, project.said()
            said = project.said()[before:]
            assert "stopping after this epoch" in said
            assert said.splitlines()[-1].startswith("stopped: "), said
            assert "Traceback" not in said, said
            assert "rror" not in said, said
        assert project.headrace("run", "--profile", "cluster", "--until-caught-up").wait(PASSES_S_MAX) == 0
        project.check(sent)
