"""What executors computed of a micro-batch is all there, or nothing of it is written."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pytest

import headrace as hr
from headrace.engine.local import LocalEngine
from headrace.engine.local.compute import Delta
from headrace.engine.local.reader import Batch
from headrace.engine.spark.computing import COUNTS, Change
from headrace.engine.spark.epoch import SparkEpoch
from headrace.errors import TransientError
from headrace.log import open_embedded_log
from headrace.sql import plan_pipeline
from headrace.store import Store

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


@contextmanager
def judged(folder: Path) -> Iterator[SparkEpoch]:
    """An epoch that has accepted three records, of which `counts` knows nothing yet."""
    pipeline = hr.Pipeline("counted")
    pipeline.stream("events", schema="n BIGINT NOT NULL")
    pipeline.table("counts", "SELECT n, count(*) AS records FROM events GROUP BY n")
    plan = plan_pipeline(pipeline)
    log = open_embedded_log(folder / "log.sqlite", "events", clock=lambda: NOW, durable=False)
    log.append(pa.table({"value": pa.array([b'{"n": 1}'] * 3, pa.binary())}))
    store = Store.open(folder / "store.duckdb", plan, identities={"events": log.identity})
    engine = LocalEngine(plan, {"events": log}, store)
    try:
        batches: list[Batch] = engine._reader.read(engine._positions(), rows_max=10, wait=timedelta(0))
        epoch = SparkEpoch(
            plan, store, engine._queries, engine._writers, engine._keys, engine._closings, lambda step: None
        )
        epoch.judge(batches)
        yield epoch
    finally:
        engine.close()
        store.close()
        log.close()


def change(accepted: int) -> tuple[str, Change]:
    delta = Delta(pa.table({"n": pa.array([], pa.int64())}))
    return "events/main", Change("counts", delta, {**dict.fromkeys(COUNTS, 0), "accepted": accepted})


@pytest.mark.parametrize("parts", [[], [1], [1, 1], [3, 1]])
def test_a_table_that_was_not_given_each_accepted_row_once_stops_the_micro_batch(
    tmp_path: Path, parts: list[int]
) -> None:
    with judged(tmp_path) as epoch, pytest.raises(TransientError, match="of 3 accepted rows"):
        epoch.add([change(accepted) for accepted in parts], {})
