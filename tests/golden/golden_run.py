"""Runs a golden case on the local engine and writes what came out in the form of `expected.json`."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

import canonical
from golden_case import Case

from headrace.testing import CrashPolicy, OpenLog, PipelineTest


def run_case(
    case: Case,
    *,
    cuts: int | None = None,
    crashes: CrashPolicy | None = None,
    open_log: OpenLog | None = None,
) -> tuple[dict[str, Any], list[tuple[int, str]]]:
    """The answers of `case`, and where it crashed.

    `open_log` opens its streams on another log than the embedded one.
    With `cuts` the records are appended a few at a time between the epochs, and epochs read few records.
    """
    test = PipelineTest(
        case.module("pipeline").pipeline,
        partitions=case.partitions,
        start=min(one.record_time for one in case.arrivals),
        cuts=cuts,
        crashes=crashes,
        open_log=open_log,
    )
    chance = random.Random(cuts)
    with test:
        for arrival in case.arrivals:
            test.send_bytes(
                arrival.stream, [arrival.value], at=arrival.record_time, partition=arrival.partition
            )
            if cuts is not None and chance.random() < 0.3:
                test.step()
        test.run()
        return written(test, case), test.crashes_seen


def written(test: PipelineTest, case: Case) -> dict[str, Any]:
    """What the opened `test` holds, in the form of `expected.json`."""
    expected = case.expected
    ledger = test.ledger()
    assert ledger.balanced
    streams = {name: _stream(test, name, count) for name, count in case.partitions.items()}
    counts = {name: table_counts(test, name) for name in expected["table_counts"]}
    tables = {name: canonical.rows(test.table(name)) for name in expected["tables"]}
    return {"streams": streams, "table_counts": counts, "tables": tables}


def table_counts(test: PipelineTest, name: str) -> dict[str, int]:
    """What became of the accepted records in table `name`."""
    line = next(line for line in test.ledger().tables if line.table == name)
    return {"kept": line.kept, "filtered": line.filtered, "failed": line.failed}


def _stream(test: PipelineTest, name: str, partitions: int) -> dict[str, Any]:
    ends: Counter[int] = Counter()
    for line in test.ledger().lanes:
        if (line.stream, line.lane) == (name, "main"):
            assert (line.start, line.gaps, line.lost) == (0, 0, 0)
            ends[line.partition] = line.end
    return {
        "ends": [ends[partition] for partition in range(partitions)],
        "outcomes": dict(sorted(test.outcomes(name).items())),
        "late": sorted([row["_partition"], row["_offset"]] for row in test.late(name)),
        "dead": sorted(
            [
                row["partition"],
                row["offset"],
                row["outcome"],
                sorted(reason["rule"] for reason in row["reasons"]),
            ]
            for row in test.dead_letters(name)
        ),
    }
