"""Runs the row part of a table over the accepted rows of a batch, without the rows that fail.

This comes before the transaction of an epoch: an error inside a transaction would take the whole of it away.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from headrace.engine.local.failing import FailedRow, reason_of, set_aside
from headrace.engine.local.queries import Queries
from headrace.errors import HeadraceError, InternalError
from headrace.rows.functions import raise_unusable
from headrace.sql.plan import TablePlan
from headrace.store.outside import RowFile
from headrace.store.progress import TableProgress

__all__ = [
    "Delta",
    "EpochContext",
    "FailedRow",
    "TableWriter",
    "bounds_of",
    "compute_delta",
    "count_records",
    "grouped_delta",
]


@dataclass
class Delta:
    """What one batch changes in one table: partial rows, and for side tables the counted values per group.

    kept      records of the batch that are in the table; `filtered` of them are not, `failed` were set aside
    lowest    the least window start (for rows: event time) that is touched, `highest` the greatest
    files     with rows that are written already, beside `rows`; of a table whose rows are not in the store
    """

    rows: pa.Table
    sides: dict[str, pa.Table] = field(default_factory=dict)
    kept: int = 0
    filtered: int = 0
    failed: tuple[FailedRow, ...] = ()
    lowest: int | None = None
    highest: int | None = None
    files: tuple[RowFile, ...] = ()


@dataclass(frozen=True)
class EpochContext:
    """What a table needs to know while it is written: the epoch and its own progress, which it may change."""

    queries: Queries
    epoch: int
    progress: TableProgress

    @property
    def connection(self) -> Any:
        """The connection that writes."""
        return self.queries.connection


class TableWriter(Protocol):
    """One table of one class: `compute` looks at a batch, `apply` writes inside the transaction."""

    plan: TablePlan

    def compute(self, queries: Queries, rows: int) -> Delta:
        """Return what the relation "_rows" (of so many rows) changes.

        Raises duckdb.Error when a row fails.
        """

    def apply(self, context: EpochContext, delta: Delta) -> int:
        """Write `delta`, inside the transaction; returns how many groups or rows were touched."""

    def first_time(self, bound: int) -> int:
        """Return the least event time of a row that goes to windows which begin at `bound` or later."""

    def last_end(self, event_times: pa.ChunkedArray) -> pa.ChunkedArray:
        """Return for event times, in microseconds, the end of the last window they are in."""

    def first_end(self, event_times: pa.ChunkedArray) -> pa.ChunkedArray | None:
        """Return the end of the first window that event times are in; None for a table without windows."""


def compute_delta(queries: Queries, writer: TableWriter, rows: pa.Table) -> Delta:
    """Return what `rows`, which are in place, change in a table.

    The whole batch is tried first; only on an error are the rows that fail looked for, and set aside.
    """
    try:
        return writer.compute(queries, rows.num_rows)
    except (duckdb.Error, HeadraceError) as error:
        queries.raise_crowded(error)
        raise_unusable(queries.connection)
        first = error
    good, failed = set_aside(queries, writer.plan.row_sql, rows)
    if not failed:
        raise InternalError(
            f"table '{writer.plan.name}': {type(first).__name__}: {reason_of(first)}"
        ) from first
    queries.batch(good)
    try:
        delta = writer.compute(queries, good.num_rows)
    except (duckdb.Error, HeadraceError) as error:
        queries.raise_crowded(error)
        raise InternalError(
            f"table '{writer.plan.name}': {type(error).__name__}: {reason_of(error)}"
        ) from error
    finally:
        queries.batch(rows)
    return replace(delta, failed=tuple(failed))


def grouped_delta(
    plan: TablePlan, queries: Queries, rows: int, *, partial: str, sides: Mapping[str, str]
) -> Delta:
    """Return what "_rows" (of so many rows) changes in a table that groups, but for the times it touches.

    `partial` names the query of its partial rows, which have "_n"; `sides` those of its side tables.
    """
    found = queries.table(partial)
    if not found.num_rows:
        return Delta(found, filtered=rows)
    if plan.unnests:
        kept = count_records(queries.connection, plan.row_sql, unnests=True)
    else:
        kept = pc.sum(found.column("_n")).as_py()
    counted = {name: queries.table(query) for name, query in sides.items()}
    return Delta(found, counted, kept=kept, filtered=rows - kept)


def count_records(connection: Any, row_sql: str, *, unnests: bool) -> int:
    """Return how many records of "_rows" a row part keeps.

    Only needed where one record may give several rows.
    """
    address = "SELECT DISTINCT _partition, _offset" if unnests else "SELECT _partition"
    return int(connection.execute(f"SELECT count(*) FROM ({address} FROM ({row_sql}))").fetchall()[0][0])


def bounds_of(column: pa.ChunkedArray) -> tuple[int | None, int | None]:
    """Return the least and the greatest of a column of instants, in microseconds."""
    found = pc.min_max(column.cast(pa.int64()))
    return found["min"].as_py(), found["max"].as_py()
