"""Random streams through the row stage alone: what it sets aside is what the oracle sets aside."""

from typing import Any

import pyarrow as pa
from batch_oracle import answer
from hypothesis import HealthCheck, given, settings
from oracle_model import Arrival
from random_pipelines import STREAM, Sent, arrivals_of, pipeline_of, streams

from headrace.log.protocol import RECORD_SCHEMA
from headrace.rows import RowStage
from headrace.sql import plan_pipeline


def _records(arrivals: list[Arrival]) -> pa.Table:
    columns: list[list[Any]] = [
        [one.partition for one in arrivals],
        [one.offset for one in arrivals],
        [one.record_time for one in arrivals],
        [None] * len(arrivals),
        [one.value for one in arrivals],
        [None] * len(arrivals),
    ]
    arrays = [pa.array(column, field.type) for column, field in zip(columns, RECORD_SCHEMA, strict=True)]
    return pa.table(arrays, schema=RECORD_SCHEMA)


def test_the_row_stage_sets_aside_what_the_oracle_sets_aside() -> None:
    stage = RowStage(plan_pipeline(pipeline_of({})).streams["events"])

    @settings(
        max_examples=60,
        derandomize=True,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(records=streams)
    def check(records: list[Sent]) -> None:
        arrivals = arrivals_of(records)
        expected = answer([STREAM], {}, arrivals)
        result = stage.run(_records(arrivals))
        dead = sorted(
            (
                row["partition"],
                row["offset"],
                row["outcome"],
                tuple(sorted(one["rule"] for one in row["reasons"])),
            )
            for row in result.dead.to_pylist()
        )
        late = sorted((row["_partition"], row["_offset"]) for row in result.late.to_pylist())
        assert dead == expected.addresses("events", "malformed", "rejected", "future")
        assert late == [address[:2] for address in expected.addresses("events", "late")]

    try:
        check()
    finally:
        stage.close()
