"""The table of metrics: each is declared in one line, and everything else is made of it.

The exporter, the history in the store, the documentation page, dashboards, alert rules and tests read this
table. Names follow Prometheus: base units, `_total` for counters. A counter counts committed work only: its
value comes from the store's ledger, so that it is the same before and after a crash.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

__all__ = ["METRICS", "METRICS_BY_NAME", "Kind", "Metric", "Sample", "Source"]


class Kind(StrEnum):
    """How a value may move, in Prometheus's words."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


class Source(StrEnum):
    """Where a value comes from; the value is how the documentation says it."""

    LEDGER = "the store's ledger, as of the last committed epoch"
    EPOCHS = "what the engine tells of each committed epoch, since the process began"
    LOGS = "the logs and the store's positions, every 5 seconds"
    REPLICAS = "the replicas of this run"
    SPARK = "Spark, about its executors and its last micro-batch"
    PROCESS = "the operating system, about this process and its disk"
    RUN = "the run itself"
    GENERATOR = "the generator's own process (`headrace generate --metrics-port`)"


SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)
"""Upper bounds of buckets that hold durations."""

RECORDS = (1, 10, 50, 100, 500, 1_000, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000)
"""Upper bounds of buckets that hold numbers of records."""


@dataclass(frozen=True, kw_only=True)
class Metric:
    """One line of the table.

    labels  every one is bounded: by what is declared, or by a list of words that the help names
    known   the name under which dashboards that are older than Headrace know it; published beside its own
            where the profile says so, there by the parts of a sample that has any
    bounds  upper bounds of a histogram's buckets
    """

    name: str
    kind: Kind
    unit: str
    help: str
    source: Source
    labels: tuple[str, ...] = ()
    known: str = ""
    bounds: tuple[float, ...] = ()


@dataclass(frozen=True)
class Sample:
    """One value at one time.

    A histogram gives NAME_count and NAME_sum, which only grow, and NAME with a label `quantile` (0.5, 0.95,
    0.99) over the last minute.

    parts  what `value` is the sum of, by one label more: that one's labels and value. Only the metric's
           known name shows them, so that the history and Headrace's own dashboards have one series
    """

    name: str
    labels: Mapping[str, str] = field(default_factory=dict)
    value: float = 0.0
    parts: Sequence[tuple[Mapping[str, str], float]] = ()


def _counter(name: str, unit: str, help: str, source: Source, *labels: str, known: str = "") -> Metric:
    return Metric(
        name=name, kind=Kind.COUNTER, unit=unit, help=help, source=source, labels=labels, known=known
    )


def _gauge(name: str, unit: str, help: str, source: Source, *labels: str, known: str = "") -> Metric:
    return Metric(name=name, kind=Kind.GAUGE, unit=unit, help=help, source=source, labels=labels, known=known)


def _histogram(
    name: str, bounds: tuple[float, ...], help: str, source: Source, *labels: str, known: str = ""
) -> Metric:
    return Metric(
        name=name,
        kind=Kind.HISTOGRAM,
        unit="seconds" if name.endswith("_seconds") else "records",
        help=help,
        source=source,
        labels=labels,
        known=known,
        bounds=bounds,
    )


# fmt: off
METRICS: tuple[Metric, ...] = (
    _counter("headrace_records_read_total", "records",
             "Records read from the log, whatever became of them. Under the name events_processed_total also "
             "by the stream's label column, where it has one: its 20 first values, and other for the rest.",
             Source.LEDGER, "stream", known="events_processed_total"),
    _counter("headrace_records_total", "records",
             "Records by outcome: malformed, rejected, future, late, duplicate, accepted, expired.",
             Source.LEDGER, "stream", "lane", "outcome"),
    _counter("headrace_records_by_label_total", "records",
             "Records by outcome and by the stream's label column: its 20 first values, null, other for what "
             "comes beyond, and unread for records without a row.",
             Source.LEDGER, "stream", "outcome", "value"),
    _counter("headrace_records_conflicting_total", "records",
             "Duplicates with other content than the record that was kept.", Source.LEDGER, "stream"),
    _counter("headrace_offsets_skipped_total", "offsets",
             "Offsets without a record (gap) or taken by retention before they were read (lost).",
             Source.LEDGER, "stream", "reason"),
    _counter("headrace_dead_letters_total", "records",
             "Dead letters by the rule that set them aside; a record that broke several is counted in each.",
             Source.LEDGER, "stream", "outcome", "reason"),
    _counter("headrace_rule_checks_total", "records",
             "Checks of a rule: passed, warned or rejected.", Source.LEDGER, "stream", "rule", "result"),
    _counter("headrace_table_records_total", "records",
             "Accepted records of a table: kept, filtered (by WHERE) or failed (an expression failed on it).",
             Source.LEDGER, "table", "result"),
    _counter("headrace_table_corrections_total", "records",
             "Accepted records for windows that were closed already.", Source.LEDGER, "table"),
    _counter("headrace_table_rows_removed_total", "rows", "Rows that left a table.", Source.LEDGER, "table"),
    _counter("headrace_epochs_total", "epochs", "Committed epochs.", Source.LEDGER),
    _gauge("headrace_next_offset", "offsets", "The offset to be read next.",
           Source.LEDGER, "stream", "partition"),
    _gauge("headrace_frontier_timestamp_seconds", "seconds",
           "How far record time had come with the last epoch, over all partitions of a stream, in Unix time. "
           "It stands still while nothing comes; how far behind a stream is tells its lag.",
           Source.LEDGER, "stream"),
    _gauge("headrace_watermark_timestamp_seconds", "seconds",
           "The frontier less the stream's allowed lateness, in Unix time: what others call the watermark. "
           "Of tables over this stream alone, windows that end up to here are closed as soon as no records "
           "behind the frontier are read. It stands still while nothing comes. The same on Spark, which has "
           "no other.",
           Source.LEDGER, "stream"),
    _gauge("headrace_closed_through_timestamp_seconds", "seconds",
           "Windows that end up to here are closed, in Unix time.", Source.LEDGER, "table"),
    _histogram("headrace_epoch_seconds", SECONDS,
               "How long epochs took, by stage: read, rows, duplicates, compute, write, commit, other ones "
               "of an engine, and all of them together.", Source.EPOCHS, "stage"),
    _histogram("headrace_epoch_records", RECORDS, "Records of an epoch that had any.",
               Source.EPOCHS, known="batch_size_events"),
    _histogram("headrace_latency_seconds", SECONDS,
               "To the commit, of accepted records: from event time (event), from record time, when the log "
               "took them in (record: ingest), or from reading, by the work of their epoch alone (read).",
               Source.EPOCHS, "stream", "since"),
    _gauge("headrace_processing_delay_seconds", "seconds",
           "How old records are when they are committed, or how long the oldest unread one waits, if that is "
           "longer.", Source.EPOCHS, "stream", known="stream_processing_delay_seconds"),
    _gauge("headrace_lag_records", "records", "Records in the log that were not read yet.",
           Source.LOGS, "stream"),
    _gauge("headrace_lag_seconds", "seconds",
           "From the frontier to the log's clock while records wait; 0 while none does.",
           Source.LOGS, "stream"),
    _gauge("headrace_log_up", "", "1 while the log of a stream answers.", Source.LOGS, "stream"),
    _gauge("headrace_clock_skew_seconds", "seconds",
           "How far the log's clock is ahead of this machine's, where record times show it; 0 otherwise.",
           Source.EPOCHS, "stream"),
    _gauge("headrace_replica_state", "",
           "1 for the state that a replica is in: starting, following, waiting, refused, paused, stopped.",
           Source.REPLICAS, "replica", "state"),
    _gauge("headrace_replica_lag_epochs", "epochs", "Epochs that a replica has not copied yet.",
           Source.REPLICAS, "replica"),
    _gauge("headrace_replica_lag_seconds", "seconds",
           "How long ago the first epoch was committed that a replica has not copied yet.",
           Source.REPLICAS, "replica"),
    _counter("headrace_replica_rows_sent_total", "rows", "Rows sent to a replica, since the process began.",
             Source.REPLICAS, "replica", "table"),
    _counter("headrace_replica_rows_refused_total", "rows",
             "Rows that a replica's target refused, since the process began.", Source.REPLICAS, "replica"),
    _gauge("headrace_spark_executors", "", "Executors that are there; on one machine, the driver is its own.",
           Source.SPARK),
    _gauge("headrace_spark_batch_seconds", "seconds",
           "How long the last micro-batch took, by Spark's names of its parts: addBatch is all that "
           "headrace_epoch_seconds counts, triggerExecution the whole, the others what Spark does around it.",
           Source.SPARK, "part"),
    _gauge("headrace_spark_input_rate", "records/s",
           "Records of the last micro-batch, by the time since the one before it began.", Source.SPARK),
    _gauge("headrace_spark_processing_rate", "records/s",
           "Records of the last micro-batch, by the time that it took; a run keeps up while its input rate "
           "is below it.", Source.SPARK),
    _gauge("headrace_state_rows", "rows", "Rows of a table's state.", Source.LEDGER, "table"),
    _gauge("headrace_failed_cells", "cells",
           "Cells of a table that are NULL because what is computed there fails, by column; in the column "
           "HAVING, rows that are not shown because that fails. Left out while counting takes over 1 s, "
           "or more memory than there is.",
           Source.LEDGER, "table", "column"),
    _gauge("headrace_store_bytes", "bytes", "The size of the store's file and of what is not in it yet.",
           Source.PROCESS),
    _gauge("headrace_log_bytes", "bytes", "The size of the embedded log's file.", Source.PROCESS),
    _gauge("headrace_disk_free_bytes", "bytes", "What is free on the disk of the store.", Source.PROCESS),
    _gauge("headrace_disk_bytes", "bytes", "The size of the disk of the store.", Source.PROCESS),
    _gauge("headrace_fsync_seconds", "seconds",
           "How long it took to make 4 KiB durable beside the store, every 15 seconds.", Source.PROCESS),
    _counter("headrace_process_cpu_seconds_total", "seconds",
             "Processor time used by this process; it begins anew with each.", Source.PROCESS),
    _gauge("headrace_process_cpu_ratio", "", "Processor time used in the last second, in cores.",
           Source.PROCESS),
    _gauge("headrace_process_resident_memory_bytes", "bytes", "Memory of this process that is not swapped.",
           Source.PROCESS),
    _gauge("headrace_process_threads", "threads", "Threads of this process.", Source.PROCESS),
    _gauge("headrace_up", "", "1 while the pipeline runs.", Source.RUN),
    _gauge("headrace_waiting", "", "1 while a log is not ready and the engine waits for it.", Source.RUN),
    _counter("headrace_retries_total", "", "Pauses before a log that was not ready was tried again.",
             Source.RUN),
    _counter("headrace_errors_total", "", "Warnings and errors in the journal, by level.",
             Source.RUN, "level"),
    _gauge("headrace_alert_firing", "", "1 while an alert fires.", Source.RUN, "alert", "severity"),
    _counter("headrace_telemetry_total", "",
             "Spans (traces) and events (lineage) that a receiver took, or that were dropped because it did "
             "not, since the process began.", Source.RUN, "signal", "result"),
    _gauge("headrace_start_timestamp_seconds", "seconds", "When this process began, in Unix time.",
           Source.RUN),
    _counter("headrace_restarts_total", "",
             "How often a run of this project began after one that failed or was killed; one that was "
             "stopped, or had read everything, is no reason.", Source.RUN),
    _gauge("headrace_build_info", "", "1; the label says which version runs.", Source.RUN, "version"),
    _counter("headrace_observe_seconds_total", "seconds",
             "Processor time that observing took: what all these values cost.", Source.RUN),
    _gauge("headrace_series_dropped", "series",
           "Series that are not in the history, because it holds as many as it may.", Source.RUN),
    _counter("headrace_produced_records_total", "records", "Records that are durable in the log.",
             Source.GENERATOR, "stream", known="events_produced_total"),
    _counter("headrace_produce_failed_records_total", "records", "Records given up after all retries.",
             Source.GENERATOR, "stream", known="events_failed_total"),
    _histogram("headrace_produce_seconds", SECONDS, "How long one append took, retries included.",
               Source.GENERATOR, "stream", known="event_production_latency_seconds"),
)
# fmt: on
"""Every metric there is, in the order in which the documentation shows them."""

METRICS_BY_NAME: Mapping[str, Metric] = {metric.name: metric for metric in METRICS}
