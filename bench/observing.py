"""What observing costs: `python -m bench.observing [--events 1000000] [--repetitions 5] [--reader all]`.

The commerce pipeline works off the same embedded log in turns, each time into a new store: without anything
beside it, and with metrics, history, alerts, a scrape each second and the page with one reader (a process of
its own). `--reader` says which: `page` takes the stream of events as an open page does, `console` asks the
console a question every five seconds beside that, `slow` opens the stream and never reads it; `all` measures
the three in turns. Prints the seconds of every run and the ratios of the medians, and writes all of it into
`bench/results/`; the bar is 1.05. A reader that got nothing to read ends it. To be run on a quiet machine.
"""

from __future__ import annotations

import argparse
import json
import os
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
from typing import TYPE_CHECKING, Any
from urllib.request import urlopen

from bench.__main__ import load, machine

if TYPE_CHECKING:
    from headrace.engine.local import EpochReport
    from headrace.operate import Runtime

BAR = 1.05
SEED = 7
ROOT = Path(__file__).parents[1]
WITHOUT = "without"
READERS = ("page", "console", "slow")
_HOURS = 6.0
_QUESTION = "SELECT event_type, sum(events) AS events FROM event_counts GROUP BY ALL ORDER BY ALL"
_MUST = {"page": ("events", "bytes"), "console": ("events", "answers", "rows"), "slow": ("bytes",)}
"""What a reader must have read for its runs to count."""


def main() -> int:
    """Measure in turns, print, write, and say by the exit code whether the bar holds."""
    parser = argparse.ArgumentParser(prog="python -m bench.observing", description=__doc__.splitlines()[0])
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--reader", choices=(*READERS, "all"), default="all")
    parser.add_argument("--child", choices=(WITHOUT, *READERS), help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.child:
        print(json.dumps(worked_off(chosen.folder, None if chosen.child == WITHOUT else chosen.child)))
        return 0
    readers = READERS if chosen.reader == "all" else (chosen.reader,)
    began, before = datetime.now(UTC), load()
    with tempfile.TemporaryDirectory(prefix="headrace-bench-") as temporary:
        folder = Path(temporary) / "shop"
        prepare(folder, chosen.events)
        runs = in_turns(folder, (WITHOUT, *readers), chosen.repetitions)
    took = {way: statistics.median(run["seconds"] for run in made) for way, made in runs.items()}
    ratios = {reader: took[reader] / took[WITHOUT] for reader in readers}
    for reader, ratio in ratios.items():
        verdict = "kept" if ratio <= BAR else "MISSED"
        print(f"{reader:<8} ratio of the medians {ratio:.3f} (bar: at most {BAR}, {verdict})")
    facts = {"began": began.isoformat(), "load_before": before, "machine": machine(), "bar": BAR}
    path = ROOT / "bench" / "results" / f"observing-{began:%Y%m%dT%H%M%SZ}.json"
    path.write_text(json.dumps({**facts, "ratios": ratios, "runs": runs}, indent=1) + "\n")
    print(path.relative_to(ROOT))
    return 0 if max(ratios.values()) <= BAR else 1


def in_turns(folder: Path, ways: tuple[str, ...], repetitions: int) -> dict[str, list[dict[str, Any]]]:
    """Let every way have its turn `repetitions` times; each begins a round as often as it can."""
    runs: dict[str, list[dict[str, Any]]] = {way: [] for way in ways}
    for turn in range(repetitions):
        first = turn % len(ways)
        for way in (*ways[first:], *ways[:first]):
            said = measure(folder, way)
            runs[way].append(said)
            each, read = said["records"] / said["seconds"], said.get("read", "")
            print(f"{way:<8} {said['seconds']:8.2f} s  {each:12,.0f} records/s  {read}", flush=True)
    return runs


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


def measure(folder: Path, way: str) -> dict[str, Any]:
    """Work the log off in a process of its own, into a new store."""
    for old in (folder / ".headrace").glob("store.duckdb*"):
        shutil.rmtree(old) if old.is_dir() else old.unlink()
    command = [sys.executable, "-m", "bench.observing", "--child", way, "--folder", str(folder)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, timeout=1800)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    missing = [what for what in _MUST.get(way, ()) if not found["read"][what]]
    if missing:
        sys.exit(f"the reader '{way}' got no {' and no '.join(missing)}: take more --events")
    return found


def worked_off(folder: Path, reader: str | None) -> dict[str, Any]:
    """Run until caught up, without a reader unobserved.

    Returns how long it took, how many records, and what the reader read.
    """
    from headrace.operate import Runtime, load_project

    runtime, stop = Runtime.open(load_project(folder)), threading.Event()
    with ExitStack() as undo:
        undo.callback(runtime.close)
        if reader is None:
            begun = time.perf_counter()
            runtime.engine.run(stop, until_caught_up=True)
            seconds = time.perf_counter() - begun
            return {"seconds": seconds, "records": runtime.store.ledger().read("events")}
        follow, reading = watched(runtime, reader, undo)
        begun = time.perf_counter()
        runtime.run(stop, until_caught_up=True, on_epoch=follow)
        seconds = time.perf_counter() - begun
        read = json.loads(reading.communicate(timeout=60)[0].splitlines()[-1])
        return {"seconds": seconds, "records": runtime.store.ledger().read("events"), "read": read}


def watched(
    runtime: Runtime, reader: str, undo: ExitStack
) -> tuple[Callable[[EpochReport], None], subprocess.Popen[str]]:
    """Serve metrics and page, and let somebody read both until `undo`.

    Returns what takes the epochs, and the process that reads the page: it ends with its standard input.
    """
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
    reading = subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("page_reader.py")), reader, page.address],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "QUESTION": _QUESTION},
        text=True,
    )
    undo.callback(reading.wait)
    undo.callback(reading.kill)
    assert reading.stdout is not None
    if reading.stdout.readline() != "ready\n":
        raise RuntimeError(f"nobody could open the page at {page.address!r}")
    return page.epochs_too(lambda report: None), reading


if __name__ == "__main__":
    sys.exit(main())
