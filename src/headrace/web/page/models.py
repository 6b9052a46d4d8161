"""What the page's API answers and takes: the TypeScript client is made from these."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, Field

__all__ = [
    "REFUSED",
    "Alerts",
    "Column",
    "EpochLine",
    "Failure",
    "Ledger",
    "LogStream",
    "MetricSeries",
    "Overview",
    "PanelLine",
    "PeekedRecord",
    "Query",
    "Rows",
    "Silence",
    "Status",
    "Why",
    "WhyRow",
]


class Failure(BaseModel):
    """Why something was refused, and what to do instead."""

    error: str
    fix: str


REFUSED: dict[str, Any] = {"model": Failure, "description": "Refused"}
"""Described by us: the standard text of 422 changed between versions of Python."""


class Column(BaseModel):
    """A column of an answer; `kind` says how a value is read: numbers may come as texts of digits."""

    name: str
    type: str
    kind: Literal["number", "time", "text", "other"]


class Rows(BaseModel):
    """Rows, each a list in the order of the columns. `cut`: there are more."""

    columns: list[Column]
    rows: list[list[Any]]
    cut: bool
    seconds: float


class StreamColumn(BaseModel):
    name: str
    type: str


class Rule(BaseModel):
    name: str
    condition: str
    on_violation: str


class StreamLine(BaseModel):
    """A stream as it was declared, and where its log lies."""

    name: str
    log: str
    format: str
    columns: list[StreamColumn]
    event_time: str | None
    allowed_lateness_seconds: float
    future_tolerance_seconds: float
    unique: list[str]
    key: str | None
    rules: list[Rule]


class TableLine(BaseModel):
    """A table as it was declared."""

    name: str
    kind: str
    columns: list[StreamColumn]
    key: list[str]
    sources: list[str]
    references: list[str]
    window: str
    query: str
    keep_seconds: float | None


class ReplicaLine(BaseModel):
    name: str
    kind: str
    tables: list[str]


class Overview(BaseModel):
    """The pipeline: what does not change while it runs."""

    pipeline: str
    profile: str
    version: str
    run: str
    started: str
    streams: list[StreamLine]
    tables: list[TableLine]
    relations: list[str]
    replicas: list[ReplicaLine]
    panels: int


class PartitionState(BaseModel):
    lane: str
    partition: int
    position: int
    frontier: str | None
    end: int | None
    lag_records: int | None
    lag_seconds: float | None


class StreamState(BaseModel):
    outcomes: dict[str, int]
    partitions: list[PartitionState]
    lag_records: int | None
    lag_seconds: float | None


class TableState(BaseModel):
    table: str
    kind: str
    rows: int | None
    closed_through: str | None
    retired_through: str | None
    partial_since: str | None
    corrections: int
    removed: int
    rebuilding: bool


class ReplicaTable(BaseModel):
    table: str
    epoch: int
    rows_sent: int
    problem: str = ""


class ReplicaState(BaseModel):
    replica: str
    kind: str
    state: str
    why: str
    fix: str
    epoch: int
    rows_refused: int
    lag_epochs: int
    lag_seconds: float
    store_epoch: int
    tables: list[ReplicaTable]


class Throughput(BaseModel):
    records_per_second: float
    records: int
    seconds: float
    until: str | None


class AlertLine(BaseModel):
    name: str
    origin: str
    severity: str
    summary: str
    help: str
    state: str
    since: str | None
    value: float | None
    subject: str
    problem: str
    silenced_until: str | None


class SparkWorker(BaseModel):
    """A worker of a standalone cluster, as its master tells it: host and port, and what is in use of it."""

    worker: str
    state: str
    cores: int
    cores_used: int
    memory_bytes: int
    memory_used_bytes: int


class SparkState(BaseModel):
    """What Spark says of a run; `seconds` of the last micro-batch by the names that Spark gives its parts.

    Its rates are in records a second, None while they are not known: by the time since the micro-batch before
    it began (input), and by the time that it took (processing). `workers` are None where no master tells
    them, or not now; `workers_problem` says why.
    """

    master: str
    application: str
    page: str | None
    executors: int
    batch: int | None
    seconds: dict[str, float]
    records: int
    input_rate: float | None
    processing_rate: float | None
    workers: list[SparkWorker] | None = None
    workers_problem: str = ""


class TelemetryState(BaseModel):
    """What was told to a receiver of traces (in spans) or of lineage (in events), since the run began."""

    signal: str
    sent: int
    dropped: int
    waiting: int
    problem: str


class LatencySums(BaseModel):
    """How many records were committed since the run began, and how long they were under way in all."""

    records: float
    seconds: float


class Status(BaseModel):
    """Where everything stands; what `headrace status --json` prints, and the time at which it was asked.

    `latencies` by stream, and since when: event time (`event`), record time (`record`) or reading (`read`).
    """

    at: str
    running: bool
    waiting: str
    awaits: str = ""
    log_problem: str
    throughput: Throughput
    epoch: int
    store_id: str
    state_bytes: int
    streams: dict[str, StreamState]
    tables: list[TableState]
    replicas: list[ReplicaState]
    spark: SparkState | None = None
    telemetry: list[TelemetryState]
    alerts: list[AlertLine]
    latencies: dict[str, dict[str, LatencySums]]


class LedgerStream(BaseModel):
    read: int
    outcomes: dict[str, int]


class LedgerTable(BaseModel):
    table: str
    accepted: int
    kept: int
    filtered: int
    failed: int
    corrections: int


class LedgerLane(BaseModel):
    stream: str
    lane: str
    partition: int
    start: int
    end: int
    gaps: int
    lost: int
    conflicting: int
    outcomes: dict[str, int]


class Ledger(BaseModel):
    """What became of every record; what `headrace ledger --json` prints."""

    balanced: bool
    epoch: int
    streams: dict[str, LedgerStream]
    tables: list[LedgerTable]
    lanes: list[LedgerLane]


class EpochLine(BaseModel):
    """One epoch; `seconds` by stage, empty for those of an earlier run."""

    epoch: int
    at: str
    records: int
    outcomes: dict[str, dict[str, int]]
    seconds: dict[str, float]
    rows: dict[str, int]


class Query(BaseModel):
    """A reading query."""

    sql: str = Field(min_length=1, max_length=100_000)
    rows_max: int = Field(default=1_000, ge=1, le=10_000)


class WhyRow(BaseModel):
    """A row of a table: the columns that tell it apart, as they were given; or all of them."""

    row: dict[str, Any]


class WhyRecord(BaseModel):
    address: str
    record_time: str
    event_time: str | None
    value: str


class WhyLeftOut(BaseModel):
    """Records that are not in a row's numbers, of one kind; `samples` are the first of them."""

    what: str
    why: str
    records: int
    samples: list[WhyRecord]


class Why(BaseModel):
    """The records that a row of a table was made of, as of an epoch. `notes`: what could not be looked at."""

    table: str
    stream: str
    row: dict[str, Any]
    window_start: str | None
    window_end: str | None
    epoch: int
    records: int
    samples: list[WhyRecord]
    left_out: list[WhyLeftOut]
    scanned: int
    notes: list[str]


class PanelLine(BaseModel):
    """A panel as it was declared; `about` are the comments with which its query begins."""

    number: int
    title: str
    kind: str
    unit: str
    query: str
    about: str


class LogPartition(BaseModel):
    partition: int
    start: int
    end: int
    records: int
    bytes: int
    share: float


class LogReaderPartition(BaseModel):
    partition: int
    position: int | None
    lag_records: int


class LogReader(BaseModel):
    reader: str
    lag_records: int
    partitions: list[LogReaderPartition]


class LogStream(BaseModel):
    """A stream's log; `problem` says why it does not answer."""

    stream: str
    problem: str
    settings: dict[str, Any]
    records: int = 0
    bytes: int = 0
    bytes_estimated: bool = False
    partitions: list[LogPartition] = []
    readers: list[LogReader] = []


class PeekedRecord(BaseModel):
    """A record in the log; `form` is json, text, bytes or tombstone."""

    address: str
    partition: int
    offset: int
    record_time: str
    key: str | None
    form: str
    value: str
    problem: str


class Alerts(BaseModel):
    """Every alert; `recent` are the last changes of their states."""

    alerts: list[AlertLine]
    recent: list[dict[str, Any]]


class Silence(BaseModel):
    """For how long nobody is told of an alert; 0: they are told again."""

    minutes: int = Field(ge=0, le=43_200)


class MetricSeries(BaseModel):
    """A metric with one set of labels over time, in Unix seconds; no value: nothing was observed."""

    name: str
    labels: dict[str, str]
    times: list[float]
    values: list[float | None]
