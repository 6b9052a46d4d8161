"""Measure how long records take into the stores: `python -m bench.replicas.delays [--minutes 30] [--quick]`.

`commerce`: 65,000 events an hour, behind as much history, into every kind of store at once. `signups`: 1,000
users a minute, from the moment when the API gave them until a client of Cassandra's own finds them. Prints a
line for each store, with the 99th percentile and the bar, and writes what was measured into `bench/results/`.
The exit code is 1 when a bar is missed. To be run on a quiet machine.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from bench.replicas.delay_commerce import commerce
from bench.replicas.delay_signups import signups

CASES = {"commerce": commerce, "signups": signups}
QUICK_MINUTES = 1.0


@dataclass(frozen=True)
class Line:
    """What was measured of a store."""

    case: str
    store: str
    records: int
    p50: float
    p99: float
    longest: float
    bar: float


def main() -> int:
    """Run the chosen cases."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.replicas.delays", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--minutes", type=float, default=30.0, help="how long records come")
    parser.add_argument("--quick", action="store_true", help="a minute: does it run?")
    parser.add_argument("--case", action="append", choices=list(CASES), help="only this case (repeatable)")
    chosen = parser.parse_args()
    minutes = QUICK_MINUTES if chosen.quick else chosen.minutes
    began, load = datetime.now(UTC), os.getloadavg()
    lines: list[Line] = []
    for case in chosen.case or CASES:
        for store, (bar, seconds) in CASES[case](minutes).items():
            cuts = statistics.quantiles(seconds, n=100, method="inclusive")
            line = Line(case, store, len(seconds), cuts[49], cuts[98], max(seconds), bar)
            lines.append(line)
            verdict = "pass" if line.p99 < bar else "MISS"
            print(
                f"{case} into {store}, {line.records:,} records: p50 {line.p50:.2f} s, p99 {line.p99:.2f} s, "
                f"longest {line.longest:.2f} s, bar {bar:g} s: {verdict}",
                flush=True,
            )
    facts = {
        "began": began.isoformat(), "load_before": load, "minutes": minutes,
        "lines": [asdict(line) for line in lines],
    }  # fmt: skip
    path = Path(__file__).parents[1] / "results" / f"delays-{began:%Y%m%dT%H%M%SZ}.json"
    path.write_text(json.dumps(facts, indent=2) + "\n")
    print(path)
    return 1 if any(line.p99 >= line.bar for line in lines) else 0


if __name__ == "__main__":
    sys.exit(main())
