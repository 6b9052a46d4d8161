"""Headrace following a topic until its input ends: prints when it stood where, after every commit.

A commit's line is `[seconds since the epoch, {partition: next offset}]`. It is printed when the transaction
is over: whoever asks the store now sees the rows.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from pathlib import Path
from typing import Any

from bench.data import STREAM
from bench.kafka.contestants.marks import TASK
from bench.kafka.engine import open_run


def main() -> None:
    """Follow."""
    run = open_run(TASK["case"], TASK["brokers"], TASK["topic"], Path(TASK["store"]))
    stop = threading.Event()

    def committed(report: Any) -> None:
        if sum(report.records.values()):
            positions = run.store.progress.positions(STREAM)
            print(json.dumps([time.time(), {str(p): n for p, n in positions.items()}]), flush=True)

    engine = threading.Thread(target=run.engine.run, args=(stop,), kwargs={"on_epoch": committed})
    engine.start()
    print(json.dumps([time.time(), {}]), flush=True)
    sys.stdin.read()
    stop.set()
    engine.join()
    ledger = bool(run.store.ledger().balanced)
    run.close()
    if not ledger:
        raise SystemExit("the ledger does not balance")


main()
