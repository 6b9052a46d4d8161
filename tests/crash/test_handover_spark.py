"""A pipeline under load goes from the local engine to Spark and back: the answers do not show it."""

from __future__ import annotations

import signal
import threading
import time
from datetime import timedelta
from pathlib import Path

import pytest
from crash_pipeline import START, append_table, arrivals
from kafka_project import end
from oracle_model import Arrival
from spark_project import PASSES_S_MAX, SparkProject

from headrace.operate import find_home, running_process
from servers.guard import wait_until
from servers.spark import SPARK_CONF

_A_SECOND = 2_000
_RECORDS_MAX = 500_000
_BATCH = 200


class _Pace:
    """Appends records at a pace while `going` is set; `sent` is what was acknowledged."""

    def __init__(self, project: SparkProject, records: list[Arrival]) -> None:
        self.going = threading.Event()
        self.sent: list[Arrival] = []
        self._log = project.open_log()
        self._records = records
        self._enough = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        due = time.monotonic()
        with self._log.load():
            for at in range(0, len(self._records), _BATCH):
                self.going.wait()
                if self._enough.wait(max(due - time.monotonic(), 0)):
                    return
                due = time.monotonic() + _BATCH / _A_SECOND
                batch = self._records[at : at + _BATCH]
                self._log.append(append_table(batch))
                self.sent += batch

    def finish(self) -> list[Arrival]:
        """Stop; it fails where the records had come to an end before."""
        assert self._thread.is_alive(), "the load ended before the last handover"
        self._enough.set()
        self._thread.join(60)
        self._log.close()
        return self.sent


def _runs(project: SparkProject, profile: str) -> None:
    """Wait until a profile is at work."""

    def found() -> bool:
        facts = running_process(find_home(project.folder))
        return facts is not None and facts["profile"] == profile

    wait_until(found, what=f"profile {profile} runs", seconds=PASSES_S_MAX)


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_a_pipeline_goes_to_spark_and_back_under_load_and_its_answers_do_not_show_it(
    kafka_broker: str, tmp_path: Path
) -> None:
    records = arrivals(_RECORDS_MAX, seed=9)
    with SparkProject(tmp_path, kafka_broker, SPARK_CONF) as project:
        load = _Pace(project, records)
        load.going.set()
        wait_until(lambda: bool(load.sent), what="the load has begun")
        first = project.headrace("run", "--profile", "kafka")
        project.passes(first, 1)
        mark = (START + timedelta(seconds=5)).isoformat()
        second = project.headrace("handover", "--to", "cluster", "--at", mark)
        assert first.wait(PASSES_S_MAX) == 0, project.said()
        _runs(project, "cluster")
        load.going.clear()  # until Spark's workers are there, which takes a slow machine minutes
        project.passes(second, project.engine_at() + 1)
        load.going.set()
        third = project.headrace("handover", "--to", "kafka")
        assert second.wait(PASSES_S_MAX) == 0, project.said()
        _runs(project, "kafka")
        sent = load.finish()
        project.passes(third, len(project.arrivals()))
        assert end(third, signal.SIGTERM) == 0, project.said()
        said = project.said()
        assert "handed over to profile 'cluster'" in said
        assert "handed over to profile 'kafka'" in said
        project.check(sent)


@pytest.mark.soak
@pytest.mark.timeout(600)
def test_a_spark_that_does_not_start_stops_nothing(kafka_broker: str, tmp_path: Path) -> None:
    wrong = {**SPARK_CONF, "spark.driver.memory": "much"}
    with SparkProject(tmp_path, kafka_broker, wrong) as project:
        first = project.headrace("run", "--profile", "kafka")
        project.log.append(append_table(arrivals(400, seed=10)))
        project.wait_for_engine(first, 400)
        assert project.headrace("handover", "--to", "cluster").wait(PASSES_S_MAX) in {1, 2}
        assert "does not start" in project.said()
        assert "handed over" not in project.said()
        project.log.append(append_table(arrivals(200, seed=11)))
        project.wait_for_engine(first, 600)
        assert end(first, signal.SIGTERM) == 0, project.said()
