"""A slice whose decoding had to wait is decoded on, not anew."""

from datetime import timedelta
from pathlib import Path

import pyarrow as pa
import pytest

import headrace as hr
from headrace.engine.local.reader import Reader
from headrace.engine.local.settings import EngineSettings
from headrace.errors import TransientError
from headrace.log import open_embedded_log
from headrace.rows.parallel import ParallelStage
from headrace.sql import plan_pipeline


def test_what_was_decoded_before_a_registry_went_away_stays_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline = hr.Pipeline("two")
    for name in ("first", "second"):
        pipeline.stream(name, schema="n INT")
    plan = plan_pipeline(pipeline)
    logs = {name: open_embedded_log(tmp_path / "log.db", name, durable=False) for name in plan.streams}
    for log in logs.values():
        log.append(pa.table({"value": pa.array([b'{"n": 1}'])}))
    reader = Reader(plan, logs, EngineSettings(), {})
    try:
        batches = reader.look({place: {} for place in reader.logs}, rows_max=10, wait=timedelta(0))
        away = [True]
        run = ParallelStage.run

        def sometimes(stage: ParallelStage, records: object, **more: object) -> object:
            if stage is reader._stages["second"] and away:
                away.clear()
                raise TransientError("the registry is away")
            return run(stage, records, **more)  # type: ignore[arg-type]

        monkeypatch.setattr(ParallelStage, "run", sometimes)
        with pytest.raises(TransientError):
            reader.decode(batches)
        reader.decode(batches)
        decoded = {batch.stream: batch.result for batch in batches if batch.lane == "main"}
        assert {name: result and result.timely.num_rows for name, result in decoded.items()} == {
            "first": 1,
            "second": 1,
        }
    finally:
        reader.close()
        for log in logs.values():
            log.close()
