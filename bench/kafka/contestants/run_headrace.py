"""Headrace: the local engine as `headrace run` runs it, with its ledger, dead letters and durable store."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bench.kafka.contestants.marks import TASK, begin, end
from bench.kafka.engine import open_run, write_tables

OUT = Path(TASK["out"])


def run(case: str, stream: dict[str, Any], store: str) -> Any:
    """Work a topic off, from the opening of everything to the last commit; return what is open."""
    opened = open_run(case, TASK["brokers"], stream["topic"], OUT / f"{store}.duckdb")
    events = opened.catch_up()
    if events != stream["events"]:
        raise SystemExit(f"{events} records read instead of {stream['events']}")
    return opened


def main() -> None:
    """Warm up, measure, write."""
    case = TASK["case"]
    run(case, TASK["warm"], "warm").close()
    begin()
    opened = run(case, TASK["stream"], "measured")
    stages = {name: round(seconds, 3) for name, seconds in opened.stages.items()}
    end(epochs=len(opened.epochs), stages=stages, balanced=bool(opened.store.ledger().balanced))
    write_tables(case, opened.store, OUT)
    opened.close()


main()
