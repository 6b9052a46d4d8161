"""Read-only queries beside the writer: one statement, its own cursor, bounded in rows and seconds."""

from __future__ import annotations

import threading
from typing import Any

import duckdb
import pyarrow as pa

from headrace.errors import RefusedError, TransientError

__all__ = ["run_query"]

_BATCH_ROWS = 10_000


def run_query(cursor: Any, sql: str, *, rows_max: int | None, seconds_max: float) -> pa.Table:
    """Run one SELECT on `cursor` and return its rows; the cursor's transaction ends before this returns.

    At most `rows_max` rows come back (the rest is not computed). Raises RefusedError for anything but a
    SELECT and
    for a query that DuckDB refuses, TransientError for one that took more than `seconds_max`.
    """
    _refuse_writing(cursor, sql)
    over = threading.Event()

    def stop() -> None:
        over.set()
        cursor.interrupt()

    timer = threading.Timer(seconds_max, stop)
    timer.daemon = True
    timer.start()
    try:
        return _rows(cursor, sql, rows_max)
    except duckdb.InterruptException as error:
        raise TransientError(
            f"the query took more than {seconds_max:g} seconds and was stopped",
            fix="ask for less: filter by a key or a time, or read a table instead of computing from rows",
        ) from error
    except duckdb.Error as error:
        if over.is_set():
            raise TransientError(
                f"the query took more than {seconds_max:g} seconds and was stopped"
            ) from error
        raise RefusedError(
            str(error).strip(), fix="correct the query; `headrace tables` lists what there is"
        ) from error
    finally:
        timer.cancel()


def _refuse_writing(cursor: Any, sql: str) -> None:
    try:
        statements = cursor.extract_statements(sql)
    except duckdb.Error as error:
        raise RefusedError(str(error).strip(), fix="correct the query") from error
    if len(statements) != 1:
        raise RefusedError(f"{len(statements)} statements", fix="ask one SELECT at a time")
    kind = statements[0].type
    if kind not in (duckdb.StatementType.SELECT, duckdb.StatementType.EXPLAIN):
        raise RefusedError(
            f"{kind.name} statements are refused: the store is written by the engine only",
            fix="write a SELECT",
        )


def _rows(cursor: Any, sql: str, rows_max: int | None) -> pa.Table:
    relation = cursor.sql(sql)
    if relation is None:
        raise RefusedError("the statement gives no rows", fix="write a SELECT")
    if rows_max is None:
        table: pa.Table = relation.to_arrow_table()
        return table
    reader = relation.to_arrow_reader(min(rows_max, _BATCH_ROWS) or 1)
    batches, left = [], rows_max
    schema = reader.schema
    while left > 0:
        try:
            batch = reader.read_next_batch()
        except StopIteration:
            break
        batches.append(batch.slice(0, left))
        left -= batches[-1].num_rows
    return pa.Table.from_batches(batches, schema)
