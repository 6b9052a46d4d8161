"""What accepted rows change in the tables of their stream; one way for an epoch and for a rebuild.

Computing comes before the transaction, because a row that fails would take all of it away; writing is inside.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pyarrow as pa

from headrace.engine.local.compute import Delta, TableWriter, bounds_of, compute_delta, count_records
from headrace.engine.local.queries import Queries
from headrace.rows.functions import forget_unusable, raise_unusable
from headrace.sql.plan import TableClass
from headrace.store.instants import micros_of_length
from headrace.store.progress import TableProgress

__all__ = ["compute_tables", "write_failed"]

_FAILED_SAMPLE = 20


def compute_tables(
    queries: Queries,
    writers: Mapping[str, TableWriter],
    tables: Mapping[str, TableProgress],
    accepted: pa.Table,
    lane: str,
) -> list[tuple[str, Delta]]:
    """Return what the accepted rows of a batch change in each of `writers`, and count them in `tables`.

    Raises DeclarationError when a function of the user cannot be run, whatever the rows are.
    """
    deltas: list[tuple[str, Delta]] = []
    if not accepted.num_rows or not writers:
        return deltas
    forget_unusable(queries.connection)
    rows = accepted.append_column("_lane", pa.repeat(lane, accepted.num_rows))
    queries.batch(rows)
    for name, writer in writers.items():
        table = tables[name]
        fitting = _narrowed(writer, rows, table.floor, table.retired_through)
        if fitting is not rows:
            queries.batch(fitting)
        found = compute_delta(queries, writer, fitting)
        raise_unusable(queries.connection)  # no record is to blame, so none is set aside
        delta = _whole_windows(writer, found, table)
        if delta.kept and table.closed_through is not None:
            table.corrections += _corrections(queries, writer, fitting, delta, table.closed_through)
        if fitting is not rows:
            queries.batch(rows)
        table.accepted += rows.num_rows
        table.kept += delta.kept
        table.failed += len(delta.failed)
        table.filtered += rows.num_rows - delta.kept - len(delta.failed)
        deltas.append((name, delta))
    return deltas


def write_failed(connection: Any, name: str, stream: str, lane: str, delta: Delta, epoch: int) -> None:
    """Write down a sample of the rows that failed in a table, inside a transaction."""
    if delta.failed:
        connection.executemany(
            "INSERT INTO _headrace.failed_rows VALUES (?, ?, ?, ?, ?, ?, ?)",
            [
                [name, stream, lane, row.partition, row.offset, row.reason, epoch]
                for row in delta.failed[:_FAILED_SAMPLE]
            ],
        )


def _narrowed(writer: TableWriter, rows: pa.Table, floor: int | None, retired: int | None) -> pa.Table:
    """Return the rows that a table may still write: none of windows that may lack records or are retired."""
    times = rows.column("_event_time").cast(pa.int64())
    keep = None
    if floor is not None:
        low = writer.first_time(floor)
        if pa.compute.min(times).as_py() < low:
            keep = pa.compute.greater_equal(times, low)
    if retired is not None:
        alive = pa.compute.greater(writer.last_end(times), retired)
        if not pa.compute.all(alive).as_py():
            keep = alive if keep is None else pa.compute.and_(keep, alive)
    return rows if keep is None else rows.filter(keep)


def _whole_windows(writer: TableWriter, delta: Delta, table: TableProgress) -> Delta:
    """Return a delta without windows that may lack records or are retired.

    A row that fits is also in windows that began long before it, when they slide.
    """
    window = writer.plan.window
    if writer.plan.kind is not TableClass.WINDOWED or window is None or delta.lowest is None:
        return delta
    bounds = [] if table.floor is None else [table.floor]
    if table.retired_through is not None:
        bounds.append(table.retired_through - micros_of_length(window.size) + 1)
    if not bounds or delta.lowest >= max(bounds):
        return delta
    least = max(bounds)
    sides = {name: _since(side, least) for name, side in delta.sides.items()}
    rows = _since(delta.rows, least)
    lowest, highest = bounds_of(rows.column("window_start"))
    return replace(delta, rows=rows, sides=sides, lowest=lowest, highest=highest)


def _since(rows: pa.Table, least: int) -> pa.Table:
    return rows.filter(pa.compute.greater_equal(rows.column("window_start").cast(pa.int64()), least))


def _corrections(queries: Queries, writer: TableWriter, rows: pa.Table, delta: Delta, closed: int) -> int:
    """Return how many of `rows`, which are in place, are corrections.

    Those are the records that the table keeps and that are in a window which was closed when their epoch
    began. A record that the table filters out or fails on is none, so where a batch is cut among them does
    not matter.
    """
    ends = writer.first_end(rows.column("_event_time").cast(pa.int64()))
    if ends is None or pa.compute.min(ends).as_py() > closed:
        return 0
    behind = rows.filter(pa.compute.less_equal(ends, closed))
    if delta.failed:
        failed = {(row.partition, row.offset) for row in delta.failed}
        places = zip(
            behind.column("_partition").to_pylist(), behind.column("_offset").to_pylist(), strict=True
        )
        behind = behind.filter(pa.array([place not in failed for place in places], pa.bool_()))
    queries.batch(behind)
    count = count_records(queries.connection, writer.plan.row_sql, unnests=writer.plan.unnests)
    queries.batch(rows)
    return count
