"""The cases: what is run how often, and the bar that its numbers are held against."""

from __future__ import annotations

import json
import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

from bench.data import START, DataSet, prepare
from bench.pipelines import COMMERCE, KEYS, WINDOW

ROOT = Path(__file__).parent.parent


class Failed(Exception):
    """A measurement ended without a result; the text is the end of what it said."""


@dataclass(frozen=True)
class Scale:
    """How much is measured."""

    events: int
    before: int
    days: int
    live_s: float
    repetitions: int


FULL = Scale(events=2_000_000, before=5_000_000, days=30, live_s=60.0, repetitions=5)
QUICK = Scale(events=200_000, before=500_000, days=3, live_s=12.0, repetitions=1)


@dataclass(frozen=True)
class Bar:
    """A number that must be reached: at least or at most."""

    least: float | None = None
    most: float | None = None

    def holds(self, value: float) -> bool:
        """Say whether `value` is within the bar."""
        return (self.least is None or value >= self.least) and (self.most is None or value <= self.most)

    def __str__(self) -> str:
        return f">= {self.least:g}" if self.least is not None else f"<= {self.most:g}"


@dataclass
class Line:
    """One row of the printed table."""

    case: str
    what: str
    value: float
    bar: Bar | None = None
    detail: str = ""


@dataclass
class Bench:
    """What a case needs: where to work, how much, and the raw results so far."""

    work: Path
    scale: Scale
    raw: list[dict[str, Any]] = field(default_factory=list)

    def run(self, task: str, **given: Any) -> dict[str, Any]:
        """Run a worker in its own process and keep its result."""
        given = {"task": task, "store": str(self.store), **given}
        began = time.perf_counter()
        done = subprocess.run(command(given), capture_output=True, text=True, cwd=ROOT, check=False)
        if done.returncode != 0:
            raise Failed(f"{task}: {done.stderr.strip()[-600:]}")
        result = json.loads(done.stdout.strip().splitlines()[-1])
        self.raw.append({"given": given, "result": result, "wall_s": round(time.perf_counter() - began, 2)})
        return dict(result)

    @property
    def store(self) -> Path:
        """The store file of the run in hand."""
        return self.work / "store.duckdb"

    def pair(self, name: str, data: DataSet, **given: Any) -> tuple[list[float], list[dict[str, Any]], str]:
        """Run the peer and Headrace in turns; return the ratios of speeds, Headrace's results, text.

        Raises Failed when a table of the two differs in any row.
        """
        folder = prepare(self.work, data)
        # What closed more than a day ago may be gone from the store by the time the peer is compared with it.
        since = START + timedelta(seconds=(data.before + data.measured) / data.rate) - timedelta(hours=20)
        both = {"pipeline": name, "folder": str(folder), "since": str(since), "filled": bool(data.before)}
        ratios, ours = [], []
        for _ in range(self.scale.repetitions):
            peer = self.run("peer", **both)
            mine = self.run("headrace", before=data.before, **both, **given)
            differ = [
                table for table, rows in mine.get("checksums", {}).items() if rows != peer["checksums"][table]
            ]
            if differ:
                raise Failed(f"{name}: Headrace and the peer differ in {', '.join(differ)}")
            if not mine["balanced"]:
                raise Failed(f"{name}: the ledger does not balance")
            mine["rate"] = mine["events"] / mine["seconds"]
            mine["peer_rate"] = peer["events"] / peer["seconds"]
            ratios.append(mine["rate"] / mine["peer_rate"])
            ours.append(mine)
        for store in self.work.glob("filled-*.duckdb"):
            store.unlink()
        own, other = (statistics.median(one[key] for one in ours) for key in ("rate", "peer_rate"))
        return (
            ratios,
            ours,
            f"{own:,.0f} against {other:,.0f} events/s ({min(ratios):.2f} to {max(ratios):.2f})",
        )


def command(given: dict[str, Any]) -> list[str]:
    """Return the command line of a worker."""
    return [sys.executable, "-m", "bench.worker", json.dumps(given)]


_BARS = {WINDOW: Bar(least=0.5), COMMERCE: Bar(least=0.3), KEYS: Bar(least=0.35)}
_TITLES = {WINDOW: "one tumbling table", COMMERCE: "commerce pipeline", KEYS: "keyed table, 1 M keys"}


def _data(scale: Scale, name: str, *, filled: bool = False) -> DataSet:
    keyed = name == KEYS
    users = (
        scale.events * 13 // 20 if keyed else 10_000
    )  # 13/20: two million draws then meet a million of them
    before, rate = (scale.before, 1000.0) if filled else (0, 14.0)
    return DataSet(scale.events, before, rate, users, keyed)


def _stages(ours: list[dict[str, Any]]) -> str:
    stages = ours[-1]["stages"]
    whole = sum(stages.values()) or 1.0
    ordered = sorted(stages.items(), key=lambda stage: -stage[1])
    return ", ".join(f"{name} {seconds / whole:.0%}" for name, seconds in ordered[:6])


def throughput(bench: Bench, name: str) -> Iterator[Line]:
    """Run cases a, b and c: speed against the peer, memory; of a store that grows also the file's size."""
    case = {WINDOW: "a", COMMERCE: "b", KEYS: "c"}[name]
    grows = name != WINDOW
    ratios, ours, text = bench.pair(name, _data(bench.scale, name), compact=grows)
    yield Line(case, f"{_TITLES[name]}: ratio to one-shot", statistics.median(ratios), _BARS[name], text)
    yield Line(case, "  epochs", ours[-1]["epochs"], None, _stages(ours))
    peak = max(one["peak_rss_mb"] for one in ours)
    if name == KEYS:
        yield Line("g", "peak memory at 1 M keys, MB", peak, Bar(most=400))
    else:
        yield Line(case, "  peak memory, MB", peak)
    if grows:
        yield _file_size(f"{_TITLES[name]}: store's file to live data", ours)


def _file_size(what: str, runs: list[dict[str, Any]]) -> Line:
    """Compare the store's file with the same database written anew; a small file is held to no bar."""
    worst = max(runs, key=lambda run: run["store_mb"] / run["live_mb"])
    text = (
        f"{worst['store_mb']} MB in the file, {worst['live_mb']} MB alive; the bar is for files above 100 MB"
    )
    bar = Bar(most=2) if worst["store_mb"] > 100 else None
    return Line("g", what, worst["store_mb"] / worst["live_mb"], bar, text)


def filled_horizon(bench: Bench) -> Iterator[Line]:
    """Run a, b and c again where every record is looked for among the keys of the records before."""
    for name in (WINDOW, COMMERCE, KEYS):
        ratios, ours, text = bench.pair(name, _data(bench.scale, name, filled=True), compact=True)
        what = f"{_TITLES[name]} with {bench.scale.before:,} remembered keys"
        yield Line("e", what, statistics.median(ratios), _BARS[name], text)
        yield Line("e", "  epochs", ours[-1]["epochs"], None, _stages(ours))
        yield Line("e", "  peak memory, MB", max(one["peak_rss_mb"] for one in ours))
        yield _file_size(f"{what}: store's file to live data", ours)


def long_history(bench: Bench) -> Iterator[Line]:
    """Compare the time of an epoch after days of history with that of the first day, in turns."""
    days = bench.scale.days
    folder = prepare(bench.work, DataSet(days * 86_400, rate=1.0))
    given = {"folder": str(folder), "days": days, "day_records": 86_400, "epoch_rows": 1200}
    runs = [bench.run("history", **given) for _ in range(bench.scale.repetitions)]
    ratios = [run["ratio"] for run in runs]
    text = (
        f"{runs[-1]['first_day_ms']} ms to {runs[-1]['last_day_ms']} ms per epoch of 1,200 records "
        f"({min(ratios):.2f} to {max(ratios):.2f})"
    )
    ratio = statistics.median(ratios)
    yield Line("d", f"epoch after {days} days to the first day's", ratio, Bar(most=1.2), text)
    yield _file_size(f"store's file to live data after {days} days", runs)


def open_reader(bench: Bench) -> Iterator[Line]:
    """Compare runs with and without somebody who reads the tables all the time."""
    folder = prepare(bench.work, _data(bench.scale, COMMERCE))
    given = {"pipeline": COMMERCE, "folder": str(folder), "since": str(START), "filled": False}
    ratios, queries = [], 0
    for _ in range(bench.scale.repetitions):
        alone = bench.run("headrace", **given)
        read = bench.run("headrace", reader=True, **given)
        ratios.append(read["seconds"] / alone["seconds"])
        queries = read["queries"]
    text = f"{queries} queries in a run ({min(ratios):.2f} to {max(ratios):.2f})"
    yield Line("f", "an open reader: time to without", statistics.median(ratios), Bar(most=1.05), text)


def at_fourteen(bench: Bench) -> Iterator[Line]:
    """Follow 14 events/s, then nothing."""
    result = bench.run("live", seconds=bench.scale.live_s)
    text = f"p50 {result['p50_ms']} ms, {result['events']} events in {result['epochs']} epochs"
    yield Line("h", "event to table at 14/s, p99 ms", result["p99_ms"], Bar(most=250), text)
    yield Line("h", "processor share at 14/s, %", result["cpu_percent"], Bar(most=25))
    yield Line("h", "processor share when idle, %", result["idle_percent"], Bar(most=2))


def _seconds_of(arguments: list[str]) -> float:
    began = time.perf_counter()
    done = subprocess.run(arguments, check=False, capture_output=True, text=True, cwd=ROOT)
    if done.returncode != 0:
        raise Failed(f"{' '.join(arguments[-2:])}: {done.stderr.strip()[-300:]}")
    return time.perf_counter() - began


def beginnings(bench: Bench) -> Iterator[Line]:
    """Measure what is waited for before anything happens."""
    rounds = max(3, bench.scale.repetitions)
    bare = statistics.median(_seconds_of([sys.executable, "-c", "pass"]) for _ in range(rounds))
    imported = statistics.median(
        _seconds_of([sys.executable, "-c", "import headrace"]) for _ in range(rounds)
    )
    helped = statistics.median(
        _seconds_of([str(Path(sys.executable).with_name("headrace")), "--help"]) for _ in range(rounds)
    )
    text = f"the interpreter alone takes {bare:.2f} s"
    yield Line("i", "import headrace, s", imported - bare, Bar(most=0.2), text)
    yield Line("i", "headrace --help, s", helped, Bar(most=0.3))


def killed(bench: Bench) -> Iterator[Line]:
    """Kill a run at full speed, and measure from the start of the next process to its first commit."""
    folder = prepare(bench.work, _data(bench.scale, COMMERCE))
    for file in bench.work.glob("store.duckdb*"):
        file.unlink()
    waits, given = [], {"task": "restart", "store": str(bench.store), "folder": str(folder)}
    for _ in range(max(3, bench.scale.repetitions)):
        began = time.perf_counter()
        process = subprocess.Popen(
            command({**given, "go_on": True}),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
        out, err = process.stdout, process.stderr
        line = out.readline() if out else ""
        waits.append(time.perf_counter() - began)
        if not line:
            raise Failed(f"restart: {err.read()[-600:] if err else ''}")
        if json.loads(line)["first_commit"] == 0:
            waits.pop()
            process.wait()
            break
        time.sleep(0.3)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    ended = bench.run("restart", folder=str(folder), go_on=True)
    if not ended["balanced"]:
        raise Failed("restart: the ledger does not balance after the kills")
    again = waits[1:] or waits
    yield Line(
        "j", "restart after a kill to first commit, s", max(again), Bar(most=3.0), f"{len(again)} kills"
    )


def generator_alone(bench: Bench) -> Iterator[Line]:
    """Measure the commerce generator."""
    result = bench.run("generate", count=bench.scale.events // 2)
    text = f"{result['alone_per_core_s']:,} per second of processor time"
    yield Line("k", "generator alone, events/s", result["alone_per_s"], None, text)
    text = f"p99 of an append of 20,000: {result['append_p99_ms']} ms"
    yield Line("k", "generator into the durable log, events/s", result["durable_per_s"], None, text)


CASES: dict[str, Callable[[Bench], Iterator[Line]]] = {
    "a": lambda bench: throughput(bench, WINDOW),
    "b": lambda bench: throughput(bench, COMMERCE),
    "c": lambda bench: throughput(bench, KEYS),
    "d": long_history,
    "e": filled_horizon,
    "f": open_reader,
    "h": at_fourteen,
    "i": beginnings,
    "j": killed,
    "k": generator_alone,
}
