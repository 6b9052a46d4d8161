"""Measure Headrace on Spark beside PySpark by hand: `python -m bench.spark [--quick] [--case …]`.

Prints a table and writes everything that was measured, with machine and versions, into `bench/results/`.
The exit code is 1 when a bar is missed, an answer differs or a case failed.
"""

from __future__ import annotations

import argparse
import signal
import sys
from dataclasses import asdict, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from bench.__main__ import show
from bench.cases import Line
from bench.kafka.broker import ROOT, one_broker
from bench.kafka.cases import load
from bench.kafka.data import generate, produce
from bench.kafka.results import clear, write
from bench.kafka.running import Ground, end_leftovers
from bench.spark.cases import BY_HAND, FULL, MICRO, MICRO_ROWS, QUICK, RACES, Scale, measured


def main() -> int:
    """Run the chosen cases, print the table, write the results."""
    parser = argparse.ArgumentParser(prog="python -m bench.spark", description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="200,000 events, one repetition")
    parser.add_argument("--case", action="append", choices=[*RACES], help="only this case (repeatable)")
    parser.add_argument("--events", type=int, help="other than 2,000,000 (200,000 with --quick)")
    parser.add_argument("--repetitions", type=int, help="other than 3 (1 with --quick)")
    parser.add_argument("--work", type=Path, default=ROOT / "bench" / ".work" / "spark")
    chosen = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what was started is stopped
    scale = QUICK if chosen.quick else FULL
    given = {"events": chosen.events, "repetitions": chosen.repetitions}
    scale = replace(scale, **{name: value for name, value in given.items() if value})
    facts: dict[str, Any] = {
        "began": datetime.now(UTC).isoformat(), "load_before": load(), "scale": asdict(scale),
        "pyspark": version("pyspark"),
    }  # fmt: skip
    print(f"{scale.events:,} events, {scale.repetitions} repetition(s), load {facts['load_before']}\n")
    lines: list[Line] = []
    failures: dict[str, str] = {}
    raw: list[dict[str, Any]] = []
    path = None
    cases = chosen.case or [*RACES]
    try:
        with one_broker() as broker:
            grounds = prepared(broker, chosen.work.absolute(), scale, cases, raw)
            for case in cases:
                for line in measured(grounds[case], case, scale.repetitions, failures):
                    lines.append(line)
                    show(line)
    finally:
        end_leftovers()
        if raw:  # what was measured is kept, also when the run is broken off
            path = write(facts, lines, failures, raw, name="spark", peers=[BY_HAND])
    bars = [line.bar.holds(line.value) for line in lines if line.bar is not None]
    print(f"\n{sum(bars)} bars kept, {bars.count(False)} missed, {len(failures)} failed; all numbers: {path}")
    return 1 if failures or not all(bars) else 0


def prepared(
    broker: Any, work: Path, scale: Scale, cases: list[str], raw: list[dict[str, Any]]
) -> dict[str, Ground]:
    """Generate the streams of these cases and write each to its topic; return where each case is run."""
    work.mkdir(parents=True, exist_ok=True)
    wanted = []
    if cases != [MICRO]:
        wanted = [("warm", scale.warm, 2, "millisecond"), ("large", scale.events, 1, "millisecond")]
    if MICRO in cases:
        # As many records at once as a micro-batch takes: both sides cut the stream at the same places.
        wanted.append(("micro", scale.micro_batches * MICRO_ROWS, 1, "second"))
        wanted.append(("micro-warm", 10 * MICRO_ROWS, 2, "second"))
    streams = {}
    for topic, events, seed, unit in wanted:
        file = work / f"{topic}-{events}.arrow"
        clear(file)
        generate(file, events, seed=seed, unit=unit)
        streams[topic] = produce(broker.bootstrap, topic, file, headers=True)
    grounds = {}
    for case in cases:
        micro = case == MICRO
        taken = {"large": streams["micro"], "warm": streams["micro-warm"]} if micro else streams
        rows = MICRO_ROWS if micro else scale.batch_rows
        grounds[case] = Ground(broker, work, taken, rows, raw, scale.run_s_max)
    return grounds


if __name__ == "__main__":
    sys.exit(main())
