"""A project on Kafka whose engine gets killed, the load that goes on meanwhile, and what its topic holds."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import crash_pipeline
from confluent_kafka.admin import AdminClient
from crash_pipeline import PARTITIONS, START, append_table, pipeline
from oracle_model import Arrival

from headrace.errors import TransientError
from headrace.log.between import read_between
from headrace.log.kafka import KafkaLog, KafkaSettings, open_kafka_log
from headrace.testing import PipelineTest, VirtualClock
from servers.guard import wait_until

_BATCH = 100
_PASSES_S_MAX = 120
_PIPELINE = """
import sys

sys.path[:0] = {folders!r}
from crash_pipeline import pipeline
"""
_PROFILES = """
[profiles.local]
streams.events = {{ log = "embedded", partitions = {partitions} }}

[profiles.kafka]
store.path = "store.duckdb"

[profiles.kafka.streams.events]
log = "kafka"
brokers = {brokers}
topic = {topic}
partitions = {partitions}
record_time = "header"
{replication}
"""


class KafkaProject:
    """The pipeline of `crash_pipeline` as a project in `folder`, with the profiles `local` and `kafka`."""

    def __init__(self, folder: Path, settings: KafkaSettings) -> None:
        self.folder = folder
        self._settings = settings
        self.log = self.open_log()
        folders = [str(Path(module.__file__ or "").parent) for module in (crash_pipeline, _oracle())]
        (folder / "pipeline.py").write_text(_PIPELINE.format(folders=folders))
        values = {"brokers": settings.brokers, "topic": settings.topic}
        quoted = {name: json.dumps(value) for name, value in values.items()}
        # The lane of redriven records, which the engine makes, must outlive a broker as well.
        quoted["replication"] = f"replication = {settings.replication}" if settings.replication else ""
        (folder / "headrace.toml").write_text(_PROFILES.format(partitions=PARTITIONS, **quoted))

    def open_log(self) -> KafkaLog:
        return open_kafka_log(self._settings, "events")

    def headrace(self, *words: str) -> subprocess.Popen[bytes]:
        """Start a command in the folder; what it says goes to `output.txt` there."""
        with (self.folder / "output.txt").open("ab") as output:
            command = [sys.executable, "-m", "headrace", *words]
            return subprocess.Popen(command, cwd=self.folder, stdout=output, stderr=output)

    def said(self) -> str:
        return (self.folder / "output.txt").read_text()

    def engine_at(self) -> int:
        """How many records the engine has committed, as its consumer group tells; 0 while nobody knows."""
        try:
            return sum(self.log.readers("engine").get("engine", {}).values())
        except TransientError:
            return 0

    def wait_for_engine(
        self, process: subprocess.Popen[bytes], position: int, *, seconds: float = _PASSES_S_MAX
    ) -> int:
        """Return what the engine has committed as soon as it is `position` or more."""
        at = 0

        def passed() -> bool:
            nonlocal at
            assert process.poll() is None, self.said()
            at = self.engine_at()
            return at >= position

        try:
            wait_until(passed, what=f"the engine passes {position}", seconds=seconds)
        except TimeoutError as error:
            raise AssertionError(f"{error}: it is at {at} and said\n{self.said()}") from None
        return at

    def leader_of(self, partition: int) -> int:
        """The number of the broker that leads a partition of the topic."""
        admin = AdminClient({"bootstrap.servers": self._settings.brokers, "log_level": 0})
        topic = admin.list_topics(self._settings.topic, timeout=10).topics[self._settings.topic]
        leader: int = topic.partitions[partition].leader
        return leader

    def arrivals(self) -> list[Arrival]:
        """What the topic holds, as the oracle takes it."""
        found = []
        for held in self.log.partitions():
            for part in read_between(self.log, {held.partition: held.start}, {held.partition: held.end}):
                found += [
                    Arrival("events", row["partition"], row["offset"], row["record_time"], row["value"])
                    for row in part.select(["partition", "offset", "record_time", "value"]).to_pylist()
                ]
        return found

    def given(self) -> dict[str, Any]:
        """What the store holds, whose ledger balances."""

        def open_log(_: str, __: int, ___: VirtualClock) -> KafkaLog:
            return self.open_log()

        with PipelineTest(
            pipeline, partitions=PARTITIONS, folder=self.folder, start=START, open_log=open_log
        ) as test:
            return crash_pipeline.given(test)


class Load:
    """Appends records in the background, as many as it is allowed, whatever becomes of brokers meanwhile."""

    def __init__(self, project: KafkaProject, records: list[Arrival]) -> None:
        self.failures = 0
        self._log = project.open_log()
        self._records = records
        self._allowed = 0
        self._changed = threading.Condition()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def allow(self, records: int) -> None:
        with self._changed:
            self._allowed += records
            self._changed.notify()

    def finish(self) -> None:
        """Append the rest, and return when all of it is acknowledged."""
        self.allow(len(self._records))
        self._thread.join(_PASSES_S_MAX)
        assert not self._thread.is_alive()
        assert self._error is None, self._error
        self._log.close()

    def _run(self) -> None:
        try:
            with self._log.load():
                for at in range(0, len(self._records), _BATCH):
                    with self._changed:
                        while self._allowed <= at:
                            self._changed.wait()
                    self._append(self._records[at : at + _BATCH])
        except BaseException as error:
            self._error = error
            raise

    def _append(self, batch: list[Arrival]) -> None:
        while True:
            try:
                self._log.append(append_table(batch))
                return
            except TransientError:
                # Some of it may be written: then it stands there twice, and the oracle finds it as well.
                self.failures += 1


def lost(sent: list[Arrival], found: list[Arrival]) -> int:
    """How many records that were acknowledged are not in the topic."""
    return (_contents(sent) - _contents(found)).total()


def added(sent: list[Arrival], found: list[Arrival]) -> int:
    """How many records the topic holds that were not sent."""
    return (_contents(found) - _contents(sent)).total()


def _contents(records: list[Arrival]) -> Counter[tuple[Any, ...]]:
    return Counter((one.partition, one.record_time, one.value) for one in records)


def end(process: subprocess.Popen[bytes], number: int = signal.SIGKILL) -> int:
    """Send a signal, and return how the process ended."""
    if process.poll() is None:
        process.send_signal(number)
    return process.wait(60)


def _oracle() -> Any:
    import batch_oracle

    return batch_oracle
