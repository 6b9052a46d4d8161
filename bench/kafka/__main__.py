"""Measure Headrace and its peers on one real broker: `python -m bench.kafka [--quick] [--peer …] [--case …]`.

Prints a table and writes everything that was measured, with machine, versions and settings, into
`bench/results/`. Speeds are ratios within the run. The exit code is 1 when a bar is missed or a case failed.
"""

from __future__ import annotations

import argparse
import signal
import sys
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench.__main__ import show
from bench.cases import Line
from bench.kafka.broker import ROOT, one_broker
from bench.kafka.cases import FULL, QUICK, TITLES, Scale, load, throughput
from bench.kafka.data import Stream, generate, produce
from bench.kafka.latency import LATENCY_CASES
from bench.kafka.peers import CONTESTANTS
from bench.kafka.results import clear, write
from bench.kafka.running import Failed, Ground, end_leftovers


def main() -> int:
    """Run the chosen cases, print the table, write the results."""
    parser = argparse.ArgumentParser(prog="python -m bench.kafka", description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="200,000 events, one repetition")
    names, cases = sorted(CONTESTANTS), [*TITLES, *LATENCY_CASES]
    parser.add_argument("--peer", action="append", choices=names, help="only these and Headrace (repeatable)")
    parser.add_argument("--case", action="append", choices=cases, help="only this case (repeatable)")
    parser.add_argument("--events", type=int, help="other than 2,000,000 (200,000 with --quick)")
    parser.add_argument("--repetitions", type=int, help="other than 3 (1 with --quick)")
    parser.add_argument("--work", type=Path, default=ROOT / "bench" / ".work" / "kafka")
    chosen = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what was started is stopped
    scale = QUICK if chosen.quick else FULL
    given = {"events": chosen.events, "repetitions": chosen.repetitions}
    scale = Scale(**{**asdict(scale), **{name: value for name, value in given.items() if value}})
    peers = [*chosen.peer, "headrace"] if chosen.peer else names
    began, load_before = datetime.now(UTC), load()
    lines: list[Line] = []
    failures: dict[str, str] = {}
    print(f"{scale.events:,} events, {scale.repetitions} repetition(s), load {load_before}\n", flush=True)
    facts = {"began": began.isoformat(), "load_before": load_before, "scale": asdict(scale)}
    raw: list[dict[str, Any]] = []
    path = None
    try:
        with one_broker() as broker:
            ground = prepared(broker, chosen.work.absolute(), scale, raw)
            for case in chosen.case or cases:
                measured(ground, case, scale, peers, lines, failures)
    finally:
        end_leftovers()
        if raw:  # what was measured is kept, also when the run is broken off
            path = write(facts, lines, failures, raw)
    bars = [line.bar.holds(line.value) for line in lines if line.bar is not None]
    missed = bars.count(False)
    print(f"\n{sum(bars)} bars kept, {missed} missed, {len(failures)} failed; all numbers: {path}")
    return 1 if failures or not all(bars) else 0


def measured(
    ground: Ground, case: str, scale: Scale, peers: list[str], lines: list[Line], failures: dict[str, str]
) -> None:
    """Run a case and show its lines as they come."""
    if case in TITLES:
        found = throughput(ground, case, scale.repetitions, peers, failures)
    else:
        found = LATENCY_CASES[case](ground, scale)
    try:
        for line in found:
            lines.append(line)
            show(line)
    except Failed as failure:
        failures[case] = str(failure)
        print(f"{case}: FAILED {failure}", flush=True)


def prepared(broker: Any, work: Path, scale: Scale, raw: list[dict[str, Any]]) -> Ground:
    """Generate the streams and write each to its topic."""
    work.mkdir(parents=True, exist_ok=True)
    streams: dict[str, Stream] = {}
    for topic, events, seed in (
        ("large", scale.events, 1),
        ("small", scale.small, 1),
        ("warm", scale.warm, 2),
        ("brief", scale.brief, 2),
    ):
        file = work / f"{topic}-{events}.arrow"
        clear(file)
        generate(file, events, seed=seed)
        streams[topic] = produce(broker.bootstrap, topic, file)
    return Ground(broker, work, streams, scale.batch_rows, raw)


if __name__ == "__main__":
    sys.exit(main())
