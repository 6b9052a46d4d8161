"""Headrace: the local engine as `headrace run` runs it, with its ledger, dead letters and durable store."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from bench.kafka.contestants.marks import TASK, begin, end, write
from bench.kafka.engine import open_run
from bench.kafka.oracle import COMMERCE, LEFT_OUT
from bench.peers import COMMERCE_TABLES

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
    if case != COMMERCE:
        query = """
            SELECT epoch_ms(window_start), name, events, coalesce(CAST(revenue * 100 AS BIGINT), 0)
            FROM result"""
        columns = opened.store.query(query, seconds_max=600.0).columns
        write(zip(*(column.to_pylist() for column in columns), strict=True))
    else:
        for table in COMMERCE_TABLES:
            chosen = f"* EXCLUDE ({', '.join(LEFT_OUT[table])})" if table in LEFT_OUT else "*"
            chosen = "event_id, timestamp, items_total" if table == "events_clean" else chosen
            rows = opened.store.query(f"SELECT {chosen} FROM {table}", seconds_max=600.0)
            pq.write_table(rows, OUT / f"{table}.parquet")
    opened.close()


main()
