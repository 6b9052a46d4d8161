"""Runs a golden case and kills itself after a step: `NAME FOLDER STEP [BROKERS TEST]`.

The step is counted from 1; with 0 it lives. Brokers and the name of a test make it read the topics of that
test (`servers.topics`) and not the log in the folder. What it was not told to survive is gone, as with
`kill -9`: nothing is closed, nothing is flushed.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[1] / "oracle"))

from golden_case import Case, load_case
from golden_run import written

from headrace.testing import CrashPolicy, OpenLog, PipelineTest
from servers.topics import KafkaTopics


def killed_after(step: int) -> CrashPolicy:
    """A policy that ends this process after so many steps of its run, and never simulates a crash."""
    steps = 0

    def kill_here(epoch: int, name: str, count: int) -> bool:
        nonlocal steps
        steps += 1
        if steps == step:
            print(name, file=sys.stderr, flush=True)
            os.kill(os.getpid(), signal.SIGKILL)
        return False

    return kill_here


def main(case: Case, folder: Path, step: int, open_log: OpenLog | None) -> None:
    last = max(one.record_time for one in case.arrivals)
    with PipelineTest(
        case.module("pipeline").pipeline,
        partitions=case.partitions,
        folder=folder,
        start=last,
        crashes=killed_after(step),
        open_log=open_log,
    ) as test:
        empty = not any(held.end for name in case.partitions for held in test.log(name).partitions())
        for one in case.arrivals if empty else ():
            test.send_bytes(one.stream, [one.value], at=one.record_time, partition=one.partition)
        while test.step(rows_max=4):
            pass
        print(json.dumps(written(test, case)))


if __name__ == "__main__":
    _name, _folder, _step, *_kafka = sys.argv[1:]
    main(load_case(_name), Path(_folder), int(_step), KafkaTopics(*_kafka).open_log if _kafka else None)
