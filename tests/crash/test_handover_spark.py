"""A pipeline under load goes from the local engine to Spark and back: the answers do not show it."""

from __future__ import annotations

import math
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
_RECORDS_MAX = 1_000_000
_BATCH = 200
_KEPT_MIN = 0.5
"""Of what was due: two cores that start Spark have moments without room for anybody else.

It only tells a load from none: what is late is sent none the less, and every answer is compared after that.
"""


class _Pace:
    """Appends records at a pace; `sent` is what was acknowledged.

    A record that is late, because the machine had other work, is sent none the less, and the pace is told by
    how many were sent.
    """

    def __init__(self, project: SparkProject, records: list[Arrival]) -> None:
        self.sent: list[Arrival] = []
        self._log = project.open_log()
        self._records = records
        self._over = threading.Event()
        self._began = time.monotonic()
        self._until = math.inf
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        with self._log.load():
            for at in range(0, len(self._records), _BATCH):
                due = self._began + at / _A_SECOND
                self._over.wait(max(due - time.monotonic(), 0))
                if due > self._until:
                    return
                batch = self._records[at : at + _BATCH]
                self._log.append(append_table(batch))
                self.sent += batch

    def finish(self) -> list[Arrival]:
        """Send what is due by now, and stop; it fails where the pace was not kept until now."""
        assert self._thread.is_alive(), f"the load ended after {len(self.sent)} records"
        sent, self._until = len(self.sent), time.monotonic()
        due = (self._until - self._began) * _A_SECOND
        print(f"{sent} of {due:.0f} records that were due had been sent")
        assert sent >= _KEPT_MIN * due
        self._over.set()
        self._thread.join(PASSES_S_MAX)
        assert len(self.sent) >= due
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
        wait_until(lambda: bool(load.sent), what="the load has begun")
        first = project.headrace("run", "--profile", "kafka")
        project.passes(first, 1)
        mark = (START + timedelta(seconds=5)).isoformat()
        second = project.headrace("handover", "--to", "cluster", "--at", mark)
        assert first.wait(PASSES_S_MAX) == 0, project.said()
        _runs(project, "cluster")
        project.passes(second, project.engine_at() + 1)
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
