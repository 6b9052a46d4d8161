"""A project whose pipeline runs on Spark, on a topic of its own, and is checked by the oracle."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import canonical
from crash_pipeline import PARTITIONS, expected
from kafka_project import KafkaProject, end, lost
from oracle_model import Arrival

from headrace.log.kafka import KafkaSettings

PASSES_S_MAX = 900
_PROFILE = """
[profiles.cluster]
engine = "spark"
store.path = "store.duckdb"
engine_settings.epoch_rows_max = 1000
streams.events = {{ log = "kafka", brokers = {brokers}, topic = {topic}, record_time = "header" }}
"""


class SparkProject(KafkaProject):
    """A project with the profiles `kafka` and `cluster` on one topic and one store.

    `more` are lines of the profile `cluster`, beside Spark's settings `conf`.
    """

    def __init__(self, folder: Path, brokers: str, conf: Mapping[str, str], more: str = "") -> None:
        self._drivers: list[subprocess.Popen[bytes]] = []
        self.topic = f"events-{folder.name}-{random.randrange(1 << 60)}"
        self.brokers = brokers
        super().__init__(
            folder,
            KafkaSettings(brokers=brokers, topic=self.topic, partitions=PARTITIONS, record_time="header"),
        )
        lines = "".join(f"{json.dumps(name)} = {json.dumps(value)}\n" for name, value in conf.items())
        with (folder / "headrace.toml").open("a") as file:
            file.write(
                _PROFILE.format(brokers=json.dumps(brokers), topic=json.dumps(self.topic)) + more + lines
            )

    def headrace(self, *words: str) -> subprocess.Popen[bytes]:
        self._drivers.append(super().headrace(*words))
        return self._drivers[-1]

    def on_a_terminal(self, *words: str) -> subprocess.Popen[bytes]:
        """Start a command as a shell does: with what it starts, it is a group that Ctrl-C reaches as one."""
        with (self.folder / "output.txt").open("ab") as output:
            self._drivers.append(
                subprocess.Popen(
                    [sys.executable, "-m", "headrace", *words],
                    cwd=self.folder,
                    stdout=output,
                    stderr=output,
                    start_new_session=True,
                )
            )
        return self._drivers[-1]

    def press_ctrl_c(self, driver: subprocess.Popen[bytes]) -> None:
        os.killpg(driver.pid, signal.SIGINT)

    def __enter__(self) -> SparkProject:
        return self

    def __exit__(self, *_: object) -> None:
        """A test that fails leaves no driver behind."""
        for driver in self._drivers:
            end(driver)

    def passes(self, driver: subprocess.Popen[bytes], position: int) -> int:
        return self.wait_for_engine(driver, position, seconds=PASSES_S_MAX)

    def check(self, sent: list[Arrival]) -> dict[str, Any]:
        """Nothing that was sent is lost, and the answers are the oracle's, which are returned."""
        found = self.arrivals()
        assert lost(sent, found) == 0
        given = self.given()
        self.log.close()
        answers = expected(found)
        assert canonical.differences(answers, given) == []
        return answers
