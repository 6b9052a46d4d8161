"""How the local engine may be set, and what it tells about an epoch."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, Literal

from headrace.store.database import MEMORY_LIMIT

__all__ = ["SAMPLED_RECORDS_MAX", "EngineSettings", "EpochReport"]

SAMPLED_RECORDS_MAX = 32
"""So many records of a stream tell the latency of an epoch; looking at all would cost more than it tells."""


@dataclass(frozen=True, kw_only=True)
class EngineSettings:
    """Bounds of an epoch and of the engine.

    linger            how long an epoch waits at most for more records after its first; it adapts below that
    on_data_loss      what to do when retention took records before they were read: stop, or count them as
    lost
    side_values_max   values that the side table of one aggregate (distinct counts, modes, quantiles) may
    hold;
                      the run stops when a table needs more
    parents           whether reports name the traces in which records were produced
    """

    epoch_rows_max: int = 80_000
    epoch_bytes_max: int = 64 * 1024 * 1024
    linger: timedelta = timedelta(milliseconds=175)
    threads: int = 2
    memory_limit: str = MEMORY_LIMIT
    on_data_loss: Literal["stop", "continue"] = "stop"
    side_values_max: int = 50_000_000
    parents: bool = False


@dataclass(frozen=True)
class EpochReport:
    """What one epoch did.

    records    read, per stream; outcomes: per stream and outcome; rows: groups or rows written, per table
    seconds    how long each stage took: read, rows, duplicates, compute, write, commit
    frontiers  per stream, None while a partition has shown nothing
    lag        per stream: records in the log that were not read yet, seconds from the frontier to the log's
    clock
    times      per stream: (record time, event time) in microseconds of some of its accepted records, evenly
    spread over the epoch, at most `SAMPLED_RECORDS_MAX`
    missing    per table that was computed again and is there now: records of its stream that were read again
    and left out, because they were accepted and today's rules refuse them; only where there are any. The
    table lacks those of them that its query would have taken, and that are in no window that it kept
    parents    per stream: the headers `traceparent` (https://www.w3.org/TR/trace-context/) of some of its
    records, at most `SAMPLED_RECORDS_MAX`, where `EngineSettings.parents` asks for them
    """

    epoch: int
    records: dict[str, int]
    outcomes: dict[str, dict[str, int]]
    rows: dict[str, int]
    seconds: dict[str, float]
    frontiers: dict[str, datetime | None]
    lag_records: dict[str, int] = field(default_factory=dict)
    lag_seconds: dict[str, float | None] = field(default_factory=dict)
    rebuilding: tuple[str, ...] = ()
    missing: dict[str, int] = field(default_factory=dict)
    times: dict[str, list[tuple[int, int]]] = field(default_factory=dict)
    parents: dict[str, list[str]] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return the report as plain values; times are ISO 8601 texts, facts of single records left out."""
        times = {stream: None if at is None else at.isoformat() for stream, at in self.frontiers.items()}
        facts = asdict(replace(self, times={}, parents={}))
        del facts["times"], facts["parents"]
        return {**facts, "frontiers": times}
