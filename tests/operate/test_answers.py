"""What a status says is of one moment."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa

import headrace as hr
from headrace.engine.local import LocalEngine
from headrace.log import open_embedded_log
from headrace.operate.answers import Answers
from headrace.sql import plan_pipeline
from headrace.store import Store


class Busy:
    """A store in which an epoch is committed after every question."""

    def __init__(self, store: Store, epoch: Callable[[], object]) -> None:
        self._store, self._epoch = store, epoch

    def __getattr__(self, name: str) -> Any:
        ask = getattr(self._store, name)

        def asked(*arguments: Any, **named: Any) -> Any:
            answer = ask(*arguments, **named)
            self._epoch()
            return answer

        return asked


def test_positions_outcomes_and_rows_are_of_one_epoch_while_others_are_committed(tmp_path: Path) -> None:
    pipeline = hr.Pipeline("shop")
    pipeline.stream("events", schema="id VARCHAR NOT NULL, seen TIMESTAMP NOT NULL", event_time="seen")
    pipeline.table("every", "SELECT id FROM events")
    plan = plan_pipeline(pipeline)
    log = open_embedded_log(tmp_path / "log.db", "events", partitions=1)
    store = Store.open(tmp_path / "store.duckdb", plan, identities={"events": log.identity})
    engine = LocalEngine(plan, {"events": log}, store)
    record = json.dumps({"id": "a", "seen": log.now().isoformat()}).encode()

    def epoch() -> None:
        log.append(pa.table({"value": pa.array([record], pa.binary())}))
        engine.step()

    try:
        epoch()
        status = Answers(Busy(store, epoch), lambda stream: log, running=True).status()
    finally:
        engine.close()
        store.close()
        log.close()
    events = status["streams"]["events"]
    position = sum(line["position"] for line in events["partitions"] if line["lane"] == "main")
    every = next(table for table in status["tables"] if table["table"] == "every")
    assert status["epoch"] == 1
    assert (position, events["outcomes"], every["rows"]) == (1, {"accepted": 1}, 1)
