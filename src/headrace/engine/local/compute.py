"""Runs the row part of a table over the accepted rows of a batch, and sets single rows aside that fail.

This comes before the transaction of an epoch: an error inside a transaction would take the whole of it away.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from headrace.engine.local.queries import Queries
from headrace.errors import HeadraceError, InternalError
from headrace.sql.plan import TablePlan
from headrace.store.progress import TableProgress

__all__ = ["Delta", "EpochContext", "FailedRow", "TableWriter", "compute_delta"]

_REASON_CHARACTERS = 300


@dataclass(frozen=True)
class FailedRow:
    """One accepted row on which a table's row part failed, and DuckDB's words for it without the values."""

    partition: int
    offset: int
    reason: str


@dataclass
class Delta:
    """What one batch changes in one table: partial rows, and for side tables the counted values per group.

    kept      records of the batch that are in the table; `filtered` of them are not, `failed` were set aside
    lowest    the least window start (for rows: event time) that is touched, `highest` the greatest
    """

    rows: pa.Table
    sides: dict[str, pa.Table] = field(default_factory=dict)
    kept: int = 0
    filtered: int = 0
    failed: tuple[FailedRow, ...] = ()
    lowest: int | None = None
    highest: int | None = None


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

    The whole batch is tried first; only on an error are the rows looked at
    one by one (by halves), and those that fail are set aside.
    """
    try:
        return writer.compute(queries, rows.num_rows)
    except (duckdb.Error, HeadraceError) as error:
        first = error
    good, failed = _isolated(queries, writer.plan.row_sql, rows)
    if not failed:
        raise InternalError(
            f"table '{writer.plan.name}': {type(first).__name__}: {_reason(first)}"
        ) from first
    queries.batch(good)
    try:
        delta = writer.compute(queries, good.num_rows)
    except (duckdb.Error, HeadraceError) as error:
        raise InternalError(
            f"table '{writer.plan.name}': {type(error).__name__}: {_reason(error)}"
        ) from error
    finally:
        queries.batch(rows)
    return replace(delta, failed=tuple(failed))


def _isolated(queries: Queries, row_sql: str, rows: pa.Table) -> tuple[pa.Table, list[FailedRow]]:
    """Return the rows on which the row part works, and the others."""
    good: list[pa.Table] = []
    failed: list[FailedRow] = []

    def look(part: pa.Table) -> None:
        queries.batch(part)
        try:
            queries.connection.sql(row_sql).to_arrow_table()
        except (duckdb.Error, HeadraceError) as error:
            if part.num_rows == 1:
                address = part.select(["_partition", "_offset"]).to_pylist()[0]
                failed.append(FailedRow(address["_partition"], address["_offset"], _reason(error)))
                return
            half = part.num_rows // 2
            look(part.slice(0, half))
            look(part.slice(half))
        else:
            good.append(part)

    look(rows)
    return pa.concat_tables(good) if good else rows.slice(0, 0), failed


def _reason(error: BaseException) -> str:
    return str(error).split("\n", 1)[0][:_REASON_CHARACTERS]


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
