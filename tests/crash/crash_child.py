"""A process to be killed: `engine FOLDER` reads the log at full speed, `producer FOLDER NAME` fills it.

With `producer FOLDER NAME BROKERS TEST` it fills the topic of that test (`servers.topics`). It prints a line
for everything that its parent waits for, and flushes each.
"""

from __future__ import annotations

import sys
import time
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from headrace.log import Log

STARTED = time.monotonic()
_TESTS = Path(__file__).parents[1]
sys.path[:0] = [str(_TESTS), str(_TESTS / "oracle")]


def say(*words: object) -> None:
    print(*words, flush=True)


def engine(folder: Path) -> None:
    """Run epochs until caught up; every step is a line, so that the parent can kill after any."""
    from crash_pipeline import PARTITIONS, START, pipeline

    from headrace.engine.local import EngineSettings, LocalEngine
    from headrace.log import open_embedded_log
    from headrace.sql import plan_pipeline
    from headrace.store import Store

    plan = plan_pipeline(pipeline)
    log = open_embedded_log(
        folder / "log.db", "events", partitions=PARTITIONS, clock=lambda: START + timedelta(hours=1)
    )
    store = Store.open(folder / "store.duckdb", plan, identities={"events": log.identity})
    local = LocalEngine(
        plan, {"events": log}, store, settings=EngineSettings(), on_step=lambda name: say("step", name)
    )
    say("opened", store.status().epoch)
    first = True
    while (report := local.step(rows_max=400)) is not None:
        if first:
            say("first", time.monotonic() - STARTED)
            first = False
        say("epoch", report.epoch)
    local.close()
    store.close()
    log.close()
    say("done")


def producer(folder: Path, name: str, *kafka: str) -> None:
    """Append numbered records in batches for ever; a line tells how many are acknowledged."""
    from headrace.log import open_embedded_log
    from headrace.testing import VirtualClock
    from headrace.testing.records import append_table

    if kafka:
        from servers.topics import KafkaTopics

        log: Log = KafkaTopics(*kafka).open_log("events", 1, VirtualClock("2026-03-01T12:00:00"))
    else:
        log = open_embedded_log(folder / "log.db", "events", partitions=1)
    at = 0
    say("acknowledged", at)
    while True:
        batch = [f"{name} {number}".encode() for number in range(at, at + 100)]
        log.append(append_table(batch, partition=0))
        at += len(batch)
        say("acknowledged", at)


if __name__ == "__main__":
    if sys.argv[1] == "engine":
        engine(Path(sys.argv[2]))
    else:
        producer(Path(sys.argv[2]), *sys.argv[3:])
