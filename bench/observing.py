"""What observing costs: `python -m bench.observing [--events 1000000] [--repetitions 5] [--reader console]`.

The commerce pipeline works off the same embedded log in turns with and without metrics, history, alerts, a
scrape each second and the page with one reader (a process of its own), each time into a new store.
`--reader` says which: one that takes the stream of events as an open page does, one that asks the console a
question every five seconds beside that, or one that opens the stream and never reads it. Prints the seconds
of every run and the ratio of the medians; the bar is 1.05. To be run on a quiet machine.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.request import urlopen

if TYPE_CHECKING:
    from headrace.engine.local import EpochReport
    from headrace.operate import Runtime

BAR = 1.05
SEED = 7
_HOURS = 6.0
_LIVE = "live = web.urlopen(address + '/api/live')\n"
_QUESTION = "SELECT event_type, sum(events) AS events FROM event_counts GROUP BY ALL ORDER BY ALL"
_READERS = {
    # Takes the events of the page as an open one does, without drawing them.
    "page": _LIVE + "for line in live: pass",
    "console": _LIVE
    + "threading.Thread(target=lambda: [None for line in live], daemon=True).start()\n"
    + f"asked = json.dumps({{'sql': {_QUESTION!r}}}).encode()\n"
    + "kind = {'Content-Type': 'application/json'}\n"
    + "while True:\n"
    + "    web.urlopen(web.Request(address + '/api/query', asked, kind)).read()\n"
    + "    time.sleep(5)",
    "slow": _LIVE + "time.sleep(3600)",
}
"""Processes that read of a page whose address they are given."""
_READER = "import json, sys, threading, time, urllib.request as web\naddress = sys.argv[1]\n"


def main() -> int:
    """Measure in turns, print, and say by the exit code whether the bar holds."""
    parser = argparse.ArgumentParser(prog="python -m bench.observing", description=__doc__.splitlines()[0])
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--reader", choices=_READERS, default="page")
    parser.add_argument("--child", choices=("with", "without"), help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.child:
        reader = chosen.reader if chosen.child == "with" else None
        print(json.dumps(worked_off(chosen.folder, reader)))
        return 0
    took: dict[str, list[float]] = {"with": [], "without": []}
    with tempfile.TemporaryDirectory(prefix="headrace-bench-") as temporary:
        folder = Path(temporary) / "shop"
        prepare(folder, chosen.events)
        for turn in range(2 * chosen.repetitions):
            # The order changes from pair to pair, so that neither has the warmer disk.
            way = ("with", "without")[(turn + turn // 2) % 2]
            said = measure(folder, way, chosen.reader)
            took[way].append(said["seconds"])
            print(f"{way:<8} {said['seconds']:8.2f} s  {said['records'] / said['seconds']:12,.0f} records/s")
    ratio = statistics.median(took["with"]) / statistics.median(took["without"])
    print(f"ratio of the medians {ratio:.3f} (bar: at most {BAR})")
    return 0 if ratio <= BAR else 1


def prepare(folder: Path, events: int) -> None:
    """Write a project and fill its log with so many events, about."""
    from headrace.blueprints import make_generator, write_project
    from headrace.operate import load_project, open_log
    from headrace.produce.generator import load_history

    write_project("commerce", folder)
    (folder / "headrace.toml").write_text("[profiles.local]\npage.port = 0\n")
    generator = make_generator("commerce", seed=SEED)
    log = open_log(load_project(folder), generator.stream)
    try:
        load_history(generator, log, hours=_HOURS, until=datetime.now(UTC), rate=events / (_HOURS * 3600))
    finally:
        log.close()


def measure(folder: Path, way: str, reader: str) -> dict[str, float]:
    """Work the log off in a process of its own, into a new store."""
    for old in (folder / ".headrace").glob("store.duckdb*"):
        shutil.rmtree(old) if old.is_dir() else old.unlink()
    command = [sys.executable, "-m", "bench.observing", "--child", way, "--folder", str(folder)]
    command += ["--reader", reader]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=1800)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def worked_off(folder: Path, reader: str | None) -> dict[str, float]:
    """Run until caught up, without a reader unobserved; return how long it took and how many records."""
    from headrace.operate import Runtime, load_project

    runtime, stop = Runtime.open(load_project(folder)), threading.Event()
    with ExitStack() as undo:
        undo.callback(runtime.close)
        follow = watched(runtime, reader, undo) if reader else None
        begun = time.perf_counter()
        if reader:
            runtime.run(stop, until_caught_up=True, on_epoch=follow)
        else:
            runtime.engine.run(stop, until_caught_up=True)
        seconds = time.perf_counter() - begun
        return {"seconds": seconds, "records": runtime.store.ledger().read("events")}


def watched(runtime: Runtime, name: str, undo: ExitStack) -> Callable[[EpochReport], None]:
    """Serve metrics and page, and let somebody read both until `undo`; return what takes the epochs."""
    from headrace.observe.exposition import MetricsServer
    from headrace.web.page.serve import served_page

    server, over = MetricsServer(runtime.observer.exposition, "127.0.0.1", 0), threading.Event()
    undo.callback(server.close)

    def scrape() -> None:
        while not over.wait(1):
            urlopen(f"http://127.0.0.1:{server.port}/metrics").read()

    scraper = threading.Thread(target=scrape)
    scraper.start()
    undo.callback(scraper.join)
    undo.callback(over.set)
    page = undo.enter_context(served_page(runtime, print))
    reader = subprocess.Popen([sys.executable, "-c", _READER + _READERS[name], page.address])
    undo.callback(reader.wait)
    undo.callback(reader.kill)
    return page.epochs_too(lambda report: None)


if __name__ == "__main__":
    sys.exit(main())
