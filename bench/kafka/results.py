"""What is kept of a run: a file with everything that was measured, and nothing of the data."""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench.__main__ import machine
from bench.cases import Line
from bench.kafka.broker import JVM, ROOT
from bench.kafka.cases import load
from bench.kafka.data import COMPRESSION, PARTITIONS, RATE
from bench.kafka.peers import CONTESTANTS, Contestant, versions


def clear(file: Path) -> None:
    """Remove a stream of an earlier run with its answers: record times lie near today."""
    for each in sorted(file.with_suffix("").rglob("*"), reverse=True):
        each.rmdir() if each.is_dir() else each.unlink()
    file.unlink(missing_ok=True)


def write(
    facts: dict[str, Any],
    lines: list[Line],
    failures: dict[str, str],
    raw: list[dict[str, Any]],
    *,
    name: str = "kafka",
    peers: Iterable[Contestant] = tuple(CONTESTANTS.values()),
) -> Path:
    """Write the results and return where."""
    folder = ROOT / "bench" / "results"
    folder.mkdir(exist_ok=True)
    path = folder / f"{name}-{datetime.now(UTC):%Y%m%dT%H%M%SZ}.json"
    rows = [
        {"case": line.case, "what": line.what.strip(), "value": line.value, "bar": str(line.bar or ""),
         "pass": line.bar.holds(line.value) if line.bar else None, "detail": line.detail}
        for line in lines
    ]  # fmt: skip
    config = {"rate": RATE, "partitions": PARTITIONS, "compression": COMPRESSION, "broker_jvm": JVM}
    packages = {each.name: versions(each) for each in peers}
    everything = {
        **facts, "load_after": load(), "machine": machine(), "config": config, "lines": rows,
        "failures": {case: tidied(text) for case, text in failures.items()}, "runs": raw,
        "packages": packages,
    }  # fmt: skip
    path.write_text(json.dumps(everything, indent=1))
    return path.relative_to(ROOT)


def tidied(text: str) -> str:
    """Return an error's text without the folders of this machine."""
    return text.replace(str(ROOT), "").replace(str(Path.home()), "~")
