"""Turns what the rooms know about themselves into samples; each function asks one of them."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headrace.engine.local.labels import OTHER, UNNAMED
from headrace.errors import HeadraceError
from headrace.observe.metrics import Sample
from headrace.rows.result import Outcome
from headrace.store.ledger import ledger_of
from headrace.store.names import state_name
from headrace.store.outside import rows_outside

if TYPE_CHECKING:
    import psutil

    from headrace.store.progress import Progress
    from headrace.store.store import Store

__all__ = [
    "REPLICA_STATES",
    "ProcessFigures",
    "failed_cells",
    "from_ledger",
    "from_minutes",
    "from_replicas",
    "from_spark",
    "frontier_of",
    "state_rows",
]

REPLICA_STATES = ("starting", "following", "waiting", "refused", "paused", "stopped")
_FSYNC_BYTES = b"\0" * 4096
_MICROS = 1e6
_CELLS_S_MAX = 1.0
"""What a reader of the store may take at a time, unless a person waits for it."""


def from_ledger(progress: Progress) -> Iterator[Sample]:
    """Give everything that the ledger counts. Costs no statement: `progress` is that of the last commit."""
    ledger = ledger_of(progress)
    counted: dict[tuple[str, str], dict[str, int]] = {}
    skipped: dict[tuple[str, str], int] = {}
    conflicting: dict[str, int] = {}
    for line in ledger.lanes:
        sums = counted.setdefault((line.stream, line.lane), dict.fromkeys(Outcome, 0))
        for outcome, records in line.outcomes.items():
            sums[outcome] += records
        for reason, offsets in (("gap", line.gaps), ("lost", line.lost)):
            skipped[line.stream, reason] = skipped.get((line.stream, reason), 0) + offsets
        conflicting[line.stream] = conflicting.get(line.stream, 0) + line.conflicting
        if line.lane == "main":
            place = {"stream": line.stream, "partition": str(line.partition)}
            yield Sample("headrace_next_offset", place, line.end)
    for stream, copies in conflicting.items():
        read = ledger.read(stream)
        parts = _by_value(progress, stream, read)
        yield Sample("headrace_records_read_total", {"stream": stream}, read, parts)
        yield Sample("headrace_records_conflicting_total", {"stream": stream}, copies)
        frontier = frontier_of(progress, stream)
        if frontier is not None:
            yield Sample("headrace_frontier_timestamp_seconds", {"stream": stream}, frontier)
    for (stream, lane), sums in counted.items():
        for outcome, records in sums.items():
            if lane != "main" and not records:
                continue  # most streams never see a redrive
            labels = {"stream": stream, "lane": lane, "outcome": str(outcome)}
            yield Sample("headrace_records_total", labels, records)
    for (stream, reason), offsets in skipped.items():
        yield Sample("headrace_offsets_skipped_total", {"stream": stream, "reason": reason}, offsets)
    yield from _by_label(progress)
    yield from _tables(progress)
    yield Sample("headrace_epochs_total", {}, progress.epoch)


def _by_value(progress: Progress, stream: str, read: int) -> list[tuple[dict[str, str], int]]:
    """Return what the records read are the sum of, by the text in the stream's label column.

    What is no named value is the difference, `other`: so the sum is `read` whatever was read before the
    stream had this label. While the column stays, no part gets less: every named record is one that was read.
    """
    held = progress.labels.get(stream)
    if held is None:
        return []
    counts = {
        value: sum(outcomes.values()) for value, outcomes in held.counts.items() if value not in UNNAMED
    }
    counts[OTHER] = read - sum(counts.values())
    return [({held.column: value}, records) for value, records in counts.items()]


def _by_label(progress: Progress) -> Iterator[Sample]:
    for stream, held in progress.labels.items():
        for value, outcomes in held.counts.items():
            for outcome, records in outcomes.items():
                labels = {"stream": stream, "outcome": outcome, "value": value}
                yield Sample("headrace_records_by_label_total", labels, records)


def _tables(progress: Progress) -> Iterator[Sample]:
    for name, table in progress.tables.items():
        for result in ("kept", "filtered", "failed"):
            labels = {"table": name, "result": result}
            yield Sample("headrace_table_records_total", labels, getattr(table, result))
        yield Sample("headrace_table_corrections_total", {"table": name}, table.corrections)
        yield Sample("headrace_table_rows_removed_total", {"table": name}, table.removed)
        if table.closed_through is not None:
            closed = table.closed_through / _MICROS
            yield Sample("headrace_closed_through_timestamp_seconds", {"table": name}, closed)


def frontier_of(progress: Progress, stream: str) -> float | None:
    """Return the least frontier of a stream's partitions in Unix time; None while one has shown nothing."""
    places = progress.lanes.get(stream, {}).get("main", {}).values()
    known = [place.frontier for place in places if place.frontier is not None]
    return min(known) / _MICROS if known and len(known) == len(places) else None


def from_minutes(store: Store) -> list[Sample]:
    """Return the checks of rules and the dead letters by reason, as of the last commit."""
    rows = store.query(
        "SELECT stream, name, CAST(sum(records) AS BIGINT) AS checked, "
        "CAST(sum(warned) AS BIGINT) AS warned, CAST(sum(rejected) AS BIGINT) AS rejected "
        "FROM _headrace.minutes WHERE kind = 'rule' GROUP BY ALL"
    ).to_pylist()
    found = []
    for row in rows:
        passed = row["checked"] - row["warned"] - row["rejected"]
        for result, records in (("passed", passed), ("warned", row["warned"]), ("rejected", row["rejected"])):
            labels = {"stream": row["stream"], "rule": row["name"], "result": result}
            found.append(Sample("headrace_rule_checks_total", labels, records))
    rows = store.query(
        "SELECT stream, outcome, reason, count(*) AS records FROM (SELECT stream, outcome, "
        "unnest(list_transform(reasons, lambda r: r.rule)) AS reason FROM dead_letters) GROUP BY ALL"
    ).to_pylist()
    for row in rows:
        labels = {name: row[name] for name in ("stream", "outcome", "reason")}
        found.append(Sample("headrace_dead_letters_total", labels, row["records"]))
    return found


def state_rows(store: Store, tables: Iterable[str]) -> list[Sample]:
    """Return how many rows the states of tables have, by one statement, and those in files of executors."""
    names = list(tables)
    if not names:
        return []
    parts = [
        f"SELECT {number} AS n, count(*) AS state_rows FROM {state_name(name)}"
        for number, name in enumerate(names)
    ]
    rows = store.query(" UNION ALL ".join(parts)).to_pylist()
    found = {names[row["n"]]: row["state_rows"] for row in rows}
    if outside := found.keys() & store.outside.keys():
        with store.snapshot() as reader:
            found |= {name: rows_outside(reader, name) for name in outside}
    return [Sample("headrace_state_rows", {"table": name}, number) for name, number in found.items()]


def failed_cells(store: Store) -> list[Sample]:
    """Return how many cells of tables fail, by column; none where that cannot be counted.

    To count them, the tables that have such cells are read whole: that may take too long, or more memory
    than DuckDB may have.
    """
    try:
        rows = store.query("FROM failed_cells", seconds_max=_CELLS_S_MAX).to_pylist()
    except HeadraceError:
        return []
    return [
        Sample(
            "headrace_failed_cells", {"table": row["table_name"], "column": row["column_name"]}, row["cells"]
        )
        for row in rows
    ]


def from_replicas(states: Sequence[Mapping[str, Any]], store: Store, now_s: float) -> Iterator[Sample]:
    """Give where replicas stand; `states` are those of `Replicas.states`."""
    head = store.progress.epoch
    for facts in states:
        name = facts["replica"]
        behind = max(0, head - facts["epoch"])
        since = None
        if behind:
            since = store.query(
                "SELECT epoch(min(committed_at)) AS since FROM epochs WHERE epoch > "
                f"{int(facts['epoch'])} AND records > 0"
            ).to_pylist()[0]["since"]
        lag = 0.0 if since is None else max(0.0, now_s - since)
        for state in REPLICA_STATES:
            labels = {"replica": name, "state": state}
            yield Sample("headrace_replica_state", labels, float(facts["state"] == state))
        yield Sample("headrace_replica_lag_epochs", {"replica": name}, behind)
        yield Sample("headrace_replica_lag_seconds", {"replica": name}, lag)
        yield Sample("headrace_replica_rows_refused_total", {"replica": name}, facts["rows_refused"])
        for table in facts["tables"]:
            labels = {"replica": name, "table": table["table"]}
            yield Sample("headrace_replica_rows_sent_total", labels, table["rows_sent"])


def from_spark(facts: Mapping[str, Any] | None) -> Iterator[Sample]:
    """Give what Spark says of the run; None: there is no Spark, or not yet."""
    if facts is None:
        return
    yield Sample("headrace_spark_executors", {}, facts["executors"])
    for part, seconds in facts["seconds"].items():
        yield Sample("headrace_spark_batch_seconds", {"part": part}, seconds)
    for rate in ("input_rate", "processing_rate"):
        if facts[rate] is not None:
            yield Sample(f"headrace_spark_{rate}", {}, facts[rate])


class ProcessFigures:
    """This process and the disk of its store."""

    def __init__(self, store_path: Path, log_path: Path) -> None:
        import psutil

        self._process: psutil.Process = psutil.Process()
        self._disk_usage = psutil.disk_usage
        self._store_path = store_path
        self._log_path = log_path
        self._before: tuple[float, float] | None = None
        self._fsync_s: float | None = None

    def samples(self) -> Iterator[Sample]:
        """Give what the system says now."""
        with self._process.oneshot():
            times = self._process.cpu_times()
            used, at = times.user + times.system, time.monotonic()
            before, self._before = self._before, (used, at)
            if before is not None and at > before[1]:
                yield Sample("headrace_process_cpu_ratio", {}, (used - before[0]) / (at - before[1]))
            yield Sample("headrace_process_cpu_seconds_total", {}, used)
            yield Sample("headrace_process_resident_memory_bytes", {}, self._process.memory_info().rss)
            yield Sample("headrace_process_threads", {}, self._process.num_threads())
        with suppress(OSError):
            disk = self._disk_usage(str(self._store_path.parent))
            yield Sample("headrace_disk_free_bytes", {}, disk.free)
            yield Sample("headrace_disk_bytes", {}, disk.total)
        yield Sample("headrace_store_bytes", {}, _size_of(self._store_path, ".wal"))
        if self._log_path.exists():
            yield Sample("headrace_log_bytes", {}, _size_of(self._log_path, "-wal"))
        if self._fsync_s is not None:
            yield Sample("headrace_fsync_seconds", {}, self._fsync_s)

    def probe_disk(self) -> None:
        """Make 4 KiB durable beside the store, and note how long that took."""
        path = self._store_path.with_name(self._store_path.name + ".probe")
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
            try:
                begun = time.perf_counter()
                os.write(descriptor, _FSYNC_BYTES)
                os.fsync(descriptor)
                self._fsync_s = time.perf_counter() - begun
            finally:
                os.close(descriptor)
                path.unlink(missing_ok=True)
        except OSError:  # a full or read-only disk: the engine says so itself
            self._fsync_s = None


def _size_of(path: Path, beside: str) -> int:
    size = 0
    for file in (path, path.with_name(path.name + beside)):
        with suppress(OSError):
            size += file.stat().st_size
    return size
