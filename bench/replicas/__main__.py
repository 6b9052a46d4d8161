"""Measure replicas against the bare client of their target: `python -m bench.replicas [--quick]`.

Every case writes the same rows in turns with its peer, against a server of its own on this machine, and
counts what is there afterwards. Prints a line for each, with the ratio of the peer's seconds to ours, and
writes everything that was measured into `bench/results/`. The exit code is 1 when a bar is missed.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import asdict, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from bench.replicas.beside_engine import beside
from bench.replicas.case import QUICK, Case, Sizes
from bench.replicas.searching import bulk
from bench.replicas.tables import delta_append, postgresql
from bench.replicas.wide_rows import upserts

CASES: dict[str, Callable[[Sizes], AbstractContextManager[Case]]] = {
    "postgresql-empty": partial(postgresql, empty=True),
    "postgresql-upsert": partial(postgresql, empty=False),
    "elasticsearch": partial(bulk, product="elasticsearch"),
    "opensearch": partial(bulk, product="opensearch"),
    "cassandra": upserts,
    "delta": delta_append,
    "down": partial(beside, way="down"),
    "parquet-beside": partial(beside, way="parquet"),
}


def main() -> int:
    """Run the chosen cases, print their ratios, write what was measured."""
    parser = argparse.ArgumentParser(prog="python -m bench.replicas", description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="few rows and one repetition: does it run?")
    parser.add_argument("--case", action="append", choices=list(CASES), help="only this case (repeatable)")
    parser.add_argument("--repetitions", type=int, help="turns of each contestant")
    chosen = parser.parse_args()
    sizes = QUICK if chosen.quick else Sizes()
    if chosen.repetitions:
        sizes = replace(sizes, repetitions=chosen.repetitions)
    began, load = datetime.now(UTC), os.getloadavg()
    measured: list[dict[str, object]] = []
    missed = 0
    for name in chosen.case or CASES:
        with CASES[name](sizes) as case:
            seconds = in_turns(case, sizes.repetitions)
        times = {who: statistics.median(each) for who, each in seconds.items()}
        peer, ours = times.values()
        misses = case.bar is not None and peer / ours < case.bar
        missed += misses
        bar = "" if case.bar is None else f", bar {case.bar:.2f}: {'MISS' if misses else 'pass'}"
        shown = ", ".join(f"{who} {each:.2f} s" for who, each in times.items())
        print(f"{case.title}, {case.rows:,} rows: {shown}, {peer / ours:.2f} x{bar}", flush=True)
        facts = {"title": case.title, "rows": case.rows, "bar": case.bar, "ratio": peer / ours}
        measured.append({"case": name, **facts, "seconds": seconds})
    facts = {"began": began.isoformat(), "load_before": load, "sizes": asdict(sizes), "cases": measured}
    path = Path(__file__).parents[1] / "results" / f"replicas-{began:%Y%m%dT%H%M%SZ}.json"
    path.write_text(json.dumps(facts, indent=2) + "\n")
    print(path)
    return 1 if missed else 0


def in_turns(case: Case, repetitions: int) -> dict[str, list[float]]:
    """Let the contestants run by turns, so that all have the same machine; the order changes."""
    seconds: dict[str, list[float]] = {name: [] for name in case.contestants}
    for turn in range(repetitions):
        names = list(case.contestants)
        for name in names if turn % 2 == 0 else reversed(names):
            seconds[name].append(case.contestants[name]())
    return seconds


if __name__ == "__main__":
    sys.exit(main())
