"""Runs a golden case and kills itself after a step: `NAME FOLDER STEP`, the step counted from 1.

What it was not told to survive is gone, as with `kill -9`: nothing is closed, nothing is flushed.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "oracle"))

from golden_case import Case, load_case
from golden_run import written

from headrace.testing import CrashPolicy, PipelineTest


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


def main(case: Case, folder: Path, step: int) -> None:
    first = not (folder / "log.db").exists()
    last = max(one.record_time for one in case.arrivals)
    with PipelineTest(
        case.module("pipeline").pipeline,
        partitions=case.partitions,
        folder=folder,
        start=last,
        crashes=killed_after(step),
    ) as test:
        for one in case.arrivals if first else ():
            test.send_bytes(one.stream, [one.value], at=one.record_time, partition=one.partition)
        while test.step(rows_max=4):
            pass
        print(json.dumps(written(test, case)))


if __name__ == "__main__":
    main(load_case(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
