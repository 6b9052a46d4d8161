"""From typed rows to outcomes: rejected, future, late, timely; dead letters and counts of rules.

The order of the checks is that of `Outcome`. Malformed records come with their reasons; the engine finds
duplicates.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from headrace.log.arrays import Mask, Rows
from headrace.rows.carried import typed
from headrace.rows.result import DEAD_SCHEMA, RULE_SCHEMA, Outcome, RowResult
from headrace.sql.plan import StreamPlan

__all__ = ["Decoded", "Malformed", "add_up", "distinct", "outcomes", "rows_of"]

Reasons = tuple[tuple[str, str], ...]
_MICROSECOND = timedelta(microseconds=1)
_MINUTE = 60_000_000
_MINUTES = 1_000
_NO_ROWS: Rows = np.zeros(0, np.int64)
_NO_DEAD = DEAD_SCHEMA.empty_table()
_TIME = pa.timestamp("us", "UTC")


def rows_of(table: pa.Table, rows: Rows) -> pa.Table:
    """The given rows of `table`, which come in their order. `take` would copy the whole table first."""
    if len(table) == len(rows):
        return table
    keep = np.zeros(table.num_rows, np.bool_)
    keep[rows] = True
    return table.filter(pa.array(keep))


@dataclass(frozen=True)
class Decoded:
    """What the row query gave (`table`) for the records `rows` of the slice."""

    table: pa.Table
    rows: Rows

    def where(self, keep: Mask) -> Decoded:
        """Only the rows for which `keep` is true."""
        return self if keep.all() else Decoded(self.table.filter(pa.array(keep)), self.rows[keep])


@dataclass(frozen=True)
class Malformed:
    """A record of the slice that cannot be read, and why."""

    row: int
    reasons: Reasons


def outcomes(
    plan: StreamPlan, records: pa.Table, parts: Iterable[Decoded], malformed: list[Malformed], *, timed: bool
) -> RowResult:
    """Give each record of `records` its outcome. Without `timed`, nothing is late or future."""
    timely: list[pa.Table] = []
    late: list[pa.Table] = []
    dead = [_Dead.of_malformed(malformed)]
    rules: list[pa.Table] = []
    for part in parts:
        sorter = _Sorter(plan, records, part)
        future, overdue = sorter.times(timed)
        rejected = sorter.rejected
        dead += [sorter.dead_rejected(), sorter.dead_future(future & ~rejected)]
        timely.append(sorter.rows(~(rejected | future | overdue)))
        late.append(sorter.rows(overdue & ~rejected & ~future))
        rules.append(sorter.rules())
    return RowResult(
        timely=_together(timely),
        late=_together(late),
        dead=_dead_table(records, dead),
        rules=add_up(rules),
    )


@dataclass(frozen=True)
class _Dead:
    outcome: Outcome
    rows: list[int]
    reasons: list[Reasons]
    event_times: list[int | None]

    @staticmethod
    def of_malformed(malformed: list[Malformed]) -> _Dead:
        return _Dead(
            Outcome.MALFORMED,
            [one.row for one in malformed],
            [one.reasons for one in malformed],
            [None] * len(malformed),
        )


class _Sorter:
    """One decoded part with what is known about each of its rows."""

    def __init__(self, plan: StreamPlan, records: pa.Table, part: Decoded) -> None:
        self.plan = plan
        self.part = part
        self.whole = len(part.rows) == records.num_rows
        self.addresses = _addresses(records if self.whole else rows_of(records, part.rows))
        self.record_times = _micros(self.addresses["_record_time"])
        column = plan.stream.event_time
        self.event_time = part.table.column(column) if column else self.addresses["_record_time"]
        self.event_times = _micros(self.event_time)
        names = part.table.schema.names
        self.failures = [
            (
                f"derive:{derived.name}",
                "the expression failed for this record",
                True,
                self._flags(f"_failed_{at}"),
            )
            for at, derived in enumerate(plan.derived)
            if f"_failed_{at}" in names
        ]
        self.failures += [
            (
                f"expect:{check.name}",
                f"not true: {check.expect.condition}",
                check.expect.on_violation == "reject",
                self._flags(f"_violated_{at}"),
            )
            for at, check in enumerate(plan.checks)
        ]
        self.rejected: Mask = np.zeros(len(part.rows), np.bool_)
        for _, _, rejects, flags in self.failures:
            if rejects and flags is not None:
                self.rejected |= flags

    def _flags(self, name: str) -> Mask | None:
        column = self.part.table.column(name)
        return np.asarray(column) if any(chunk.true_count for chunk in column.chunks) else None

    def times(self, timed: bool) -> tuple[Mask, Mask]:
        """Which rows are in the future, and which are late."""
        if not timed or not self.plan.stream.event_time:
            none = np.zeros(len(self.part.rows), np.bool_)
            return none, none
        ahead = self.event_times - self.record_times
        stream = self.plan.stream
        return ahead > stream.future_tolerance // _MICROSECOND, ahead < -(
            stream.allowed_lateness // _MICROSECOND
        )

    def dead_rejected(self) -> _Dead:
        at = np.flatnonzero(self.rejected)
        reasons = [
            tuple((rule, detail) for rule, detail, _, flags in self._rejecting() if flags[row]) for row in at
        ]
        return _Dead(Outcome.REJECTED, self.part.rows[at].tolist(), reasons, self.event_times[at].tolist())

    def _rejecting(self) -> list[tuple[str, str, bool, Mask]]:
        return [
            (r, d, rejects, flags) for r, d, rejects, flags in self.failures if rejects and flags is not None
        ]

    def dead_future(self, future: Mask) -> _Dead:
        at = np.flatnonzero(future)
        ahead = (self.event_times - self.record_times)[at]
        reasons: list[Reasons] = [
            (("future", f"event time is {timedelta(microseconds=int(length))} ahead of record time"),)
            for length in ahead
        ]
        return _Dead(Outcome.FUTURE, self.part.rows[at].tolist(), reasons, self.event_times[at].tolist())

    def rows(self, keep: Mask) -> pa.Table:
        """The rows of `keep` as RowResult says."""
        if keep.all():
            return self._table
        return self._table.filter(pa.array(keep)) if keep.any() else self._table.slice(0, 0)

    @cached_property
    def _table(self) -> pa.Table:
        table = self.part.table
        columns: dict[str, Any] = {column.name: table.column(column.name) for column in self.plan.columns}
        columns |= {name: self.addresses[name] for name in ("_partition", "_offset", "_record_time")}
        columns["_event_time"] = self.event_time
        columns["_size"] = self.addresses["_size"]
        if self.plan.stream.unique:
            columns |= {name: table.column(name) for name in ("_key_hash", "_content_hash")}
        return typed(pa.table(columns), {column.name: column.type for column in self.plan.columns})

    def rules(self) -> pa.Table:
        """The counts of every rule by minute of record time."""
        minutes, minute_of = distinct(self.record_times // _MINUTE)
        checked = np.bincount(minute_of, minlength=len(minutes))
        none = np.zeros(len(minutes), np.int64)
        names = [f"derive:{derived.name}" for derived in self.plan.derived]
        names += [f"expect:{check.name}" for check in self.plan.checks]
        found = {rule: (rejects, flags) for rule, _, rejects, flags in self.failures if flags is not None}
        warned, rejected = [_NO_ROWS], [_NO_ROWS]
        for name in names:
            rejects, flags = found.get(name, (True, None))
            count = none if flags is None else np.bincount(minute_of[flags], minlength=len(minutes))
            warned.append(none if rejects else count)
            rejected.append(count if rejects else none)
        texts = [name for name in names for _ in range(len(minutes))]
        columns = [
            pa.array(np.tile(minutes * _MINUTE, len(names)).view("datetime64[us]"), _TIME),
            pa.array(texts, pa.string()),
            pa.array(np.tile(checked, len(names)), pa.int64()),
            pa.array(np.concatenate(warned), pa.int64()),
            pa.array(np.concatenate(rejected), pa.int64()),
        ]
        return pa.Table.from_arrays(columns, schema=RULE_SCHEMA)


def distinct(values: Rows) -> tuple[Rows, Rows]:
    """Return the distinct values in their order, and which of them each value is."""
    if not len(values):
        return values, values
    first = int(values.min())
    span = int(values.max()) - first + 1
    if span > len(values) + _MINUTES:
        distinct, places = np.unique(values, return_inverse=True)
        return distinct, places
    present = np.bincount(values - first, minlength=span) > 0
    return np.flatnonzero(present) + first, (present.cumsum() - 1)[values - first]


def _together(tables: list[pa.Table]) -> pa.Table:
    return tables[0] if len(tables) == 1 else pa.concat_tables(tables)


def _micros(times: pa.ChunkedArray) -> Rows:
    return np.asarray(times.cast(pa.int64()))


def _addresses(records: pa.Table) -> dict[str, pa.ChunkedArray]:
    return {
        "_partition": records.column("partition"),
        "_offset": records.column("offset"),
        "_record_time": records.column("record_time"),
        "_size": pc.binary_length(records.column("value")),
    }


def _dead_table(records: pa.Table, groups: list[_Dead]) -> pa.Table:
    """Dead letters in the order of the slice."""
    rows = [row for group in groups for row in group.rows]
    if not rows:
        return _NO_DEAD
    order = np.argsort(np.array(rows), kind="stable")
    names = [group.outcome.value for group in groups for _ in group.rows]
    reasons = [reason for group in groups for reason in group.reasons]
    times = [time for group in groups for time in group.event_times]
    taken = rows_of(records, np.array(rows)[order])
    columns = {
        name: taken.column(name) for name in ("partition", "offset", "record_time", "key", "value", "headers")
    }
    columns["outcome"] = pa.array([names[at] for at in order], pa.string())
    columns["reasons"] = pa.array(
        [[{"rule": rule, "detail": detail} for rule, detail in reasons[at]] for at in order],
        DEAD_SCHEMA.field("reasons").type,
    )
    columns["event_time"] = pa.array([times[at] for at in order], _TIME)
    return pa.table([columns[name] for name in DEAD_SCHEMA.names], schema=DEAD_SCHEMA)


def add_up(parts: list[pa.Table]) -> pa.Table:
    """Return the counts of rules of several parts as one."""
    if len(parts) == 1:
        return parts[0]
    table = pa.concat_tables(parts)
    sums = table.group_by(["minute", "rule"], use_threads=False).aggregate(
        [(name, "sum") for name in ("checked", "warned", "rejected")]
    )
    sums = sums.rename_columns([name.removesuffix("_sum") for name in sums.schema.names])
    return sums.select(RULE_SCHEMA.names).cast(RULE_SCHEMA)
