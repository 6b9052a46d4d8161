"""Measure Headrace against its bars: `python -m bench [--quick] [--case a --case b …]`.

Prints a table and writes everything that was measured, with machine and versions, into `bench/results/`.
Speeds are ratios to a peer that ran in turns with Headrace on the same bytes; `bench/peers.py` describes
the peer. The exit code is 1 when a bar is missed or a case failed.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from dataclasses import asdict, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from bench.cases import CASES, FULL, QUICK, ROOT, Bench, Failed, Line


def main() -> int:
    """Run the chosen cases, print the table, write the results."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a tenth of the events, one repetition")
    parser.add_argument("--repetitions", type=int, help="of each case (1; 5 at full size)")
    parser.add_argument("--case", action="append", choices=sorted(CASES), help="only this case (repeatable)")
    parser.add_argument(
        "--work", type=Path, default=ROOT / "bench" / ".work", help="where data and stores lie"
    )
    chosen = parser.parse_args()
    scale = QUICK if chosen.quick else FULL
    bench = Bench(chosen.work.absolute(), replace(scale, repetitions=chosen.repetitions or scale.repetitions))
    bench.work.mkdir(parents=True, exist_ok=True)
    began, lines, failures = datetime.now(UTC), [], {}
    show_head(bench)
    for case in chosen.case or sorted(CASES):
        try:
            for line in CASES[case](bench):
                lines.append(line)
                show(line)
        except Failed as failure:
            failures[case] = str(failure)
            print(f"{case:<2} FAILED  {failure}", flush=True)
    path = write(bench, began, lines, failures)
    missed = [line.what.strip() for line in lines if line.bar is not None and not line.bar.holds(line.value)]
    kept = sum(line.bar is not None for line in lines) - len(missed)
    print(f"\n{kept} bars kept, {len(missed)} missed, {len(failures)} cases failed; all numbers: {path}")
    return 1 if missed or failures else 0


def show_head(bench: Bench) -> None:
    """Say what is about to run."""
    scale = bench.scale
    print(
        f"{scale.events:,} events, {scale.repetitions} repetition(s), {os.cpu_count()} cores, load {load()}\n"
    )
    print(f"{'':<2} {'measured':<58} {'value':>12}  {'bar':>8}  {'':<5} detail", flush=True)


def show(line: Line) -> None:
    """Print one line of the table."""
    value = f"{line.value:,.3f}" if abs(line.value) < 100 else f"{line.value:,.0f}"
    verdict = "" if line.bar is None else ("pass" if line.bar.holds(line.value) else "MISS")
    bar = "" if line.bar is None else str(line.bar)
    print(f"{line.case:<2} {line.what:<58} {value:>12}  {bar:>8}  {verdict:<5} {line.detail}", flush=True)


def load() -> str:
    """Return the machine's load of the last minute: numbers taken beside other work are worth less."""
    return f"{os.getloadavg()[0]:.1f}"


def machine() -> dict[str, Any]:
    """Return what the numbers depend on besides the code."""
    info = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    models = [line.split(":", 1)[1].strip() for line in info.splitlines() if line.startswith("model name")]
    return {
        "platform": platform.platform(),
        "processor": models[0] if models else platform.processor(),
        "cores": os.cpu_count(),
        "memory_mb": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20,
        "python": platform.python_version(),
        **{name: version(name) for name in ("headrace", "duckdb", "pyarrow", "numpy")},
    }


def write(bench: Bench, began: datetime, lines: list[Line], failures: dict[str, str]) -> Path:
    """Write the results and return where."""
    folder = ROOT / "bench" / "results"
    folder.mkdir(exist_ok=True)
    path = folder / f"{began:%Y%m%dT%H%M%SZ}.json"
    rows = [
        {"case": line.case, "what": line.what.strip(), "value": line.value, "bar": str(line.bar or ""),
         "pass": line.bar.holds(line.value) if line.bar else None, "detail": line.detail}
        for line in lines
    ]  # fmt: skip
    everything = {
        "began": began.isoformat(), "load_at_end": load(), "machine": machine(), "scale": asdict(bench.scale),
        "lines": rows, "failures": failures, "runs": bench.raw,
    }  # fmt: skip
    path.write_text(json.dumps(everything, indent=1))
    return path.relative_to(ROOT)


if __name__ == "__main__":
    sys.exit(main())
