"""What a replica costs the engine: the same log worked off with and without one.

The replica's target is down, or is a folder of Parquet files that is kept up to date meanwhile. Each run is a
process of its own, with a new store; what counts is the time until the engine has read everything.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench.observing import prepare
from bench.replicas.case import Case, Sizes
from bench.replicas.rows import require

PROFILES = {
    "none": "",
    "down": 'replicas.copy = { kind = "elasticsearch", url = "http://127.0.0.1:1" }\n',
    "parquet": 'replicas.copy = { kind = "parquet", path = "warehouse", linger = "1 second" }\n',
}
_RUN_S_MAX = 1_800


@contextmanager
def beside(sizes: Sizes, way: str) -> Iterator[Case]:
    """Commerce without a replica, and with one."""
    with tempfile.TemporaryDirectory(prefix="headrace-bench-") as temporary:
        folder = Path(temporary) / "shop"
        prepare(folder, sizes.events)

        def alone() -> float:
            return worked_off(folder, "none")

        def with_it() -> float:
            return worked_off(folder, way)

        title = "engine, target down" if way == "down" else "engine, Parquet kept up to date"
        bar = 1 / 1.05 if way == "down" else None
        yield Case(title, bar, {"no replica": alone, "headrace": with_it}, sizes.events)


def worked_off(folder: Path, way: str) -> float:
    """Work the log off in a process of its own, into a new store."""
    shutil.rmtree(folder / "warehouse", ignore_errors=True)
    for old in (folder / ".headrace").glob("store.duckdb*"):
        shutil.rmtree(old) if old.is_dir() else old.unlink()
    (folder / "headrace.toml").write_text(f'[profiles.local]\npage.serve = "off"\n{PROFILES[way]}')
    words = [sys.executable, "-m", "bench.replicas.beside_engine", str(folder)]
    done = subprocess.run(words, capture_output=True, text=True, check=True, timeout=_RUN_S_MAX)
    found = json.loads(done.stdout.splitlines()[-1])
    require(found["read"], found["held"], way)
    return float(found["seconds"])


def main() -> None:
    """Run until the engine has read everything; what a replica still has to send is not waited for."""
    from headrace.operate import Runtime, load_project

    runtime, stop = Runtime.open(load_project(Path(sys.argv[1]))), threading.Event()
    held = sum(each.end - each.start for each in runtime.logs["events"].partitions())
    read, seconds, began = 0, 0.0, time.perf_counter()

    def count(report: Any) -> None:
        nonlocal read, seconds
        read += sum(report.records.values())
        if read >= held and not stop.is_set():
            seconds = time.perf_counter() - began
            stop.set()

    try:
        runtime.run(stop, on_epoch=count)
        print(json.dumps({"seconds": seconds, "read": runtime.store.ledger().read("events"), "held": held}))
    finally:
        runtime.close()


if __name__ == "__main__":
    main()
