"""Read-only queries beside the writer: one statement, its own cursor, bounded in rows and seconds."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import duckdb
import pyarrow as pa

from headrace.errors import RefusedError, TransientError
from headrace.rows.carried import typed
from headrace.store.texts import with_large_numbers, with_texts

__all__ = ["check_query", "run_query"]

_BATCH_ROWS = 10_000

_EXPLAIN = re.compile(
    r"(?:\s|--[^\n]*(?:\n|$)|/\*.*?\*/)*EXPLAIN\b\s*(?:ANALYZE\b|\(\s*(?:ANALYZE|FORMAT)\b[^)]*\))?",
    re.IGNORECASE | re.DOTALL,
)

# Some of DuckDB's table functions write a checkpoint, set an option, or run text as a query.
# So those that only give rows are named here.
_TABLE_FUNCTIONS = frozenset(
    [
        "generate_series",
        "histogram",
        "histogram_values",
        "icu_calendar_names",
        "json_each",
        "json_tree",
        "pg_timezone_names",
        "range",
        "repeat",
        "repeat_row",
        "summary",
        "unnest",
    ]
)
_TABLE_FUNCTION_PREFIXES = ("duckdb_", "pragma_")
_EFFECTFUL_FUNCTIONS = frozenset({"nextval", "setval", "write_log"})


def run_query(cursor: Any, sql: str, *, rows_max: int | None, seconds_max: float) -> pa.Table:
    """Run one SELECT, or EXPLAIN of one, on `cursor` and return its rows.

    Their columns hold the types that Arrow loses (see `rows.carried`), and texts where Arrow would lose
    values (see `store.texts`). It runs in a read-only transaction of the cursor, which ends before this
    returns. At most `rows_max` rows come back (the rest is not computed).
    Raises RefusedError for anything but a SELECT that only reads and for a query that DuckDB refuses,
    TransientError for one that took more than `seconds_max`.
    """
    check_query(cursor, sql)
    cursor.execute("BEGIN TRANSACTION READ ONLY")
    try:
        return _run(cursor, sql, rows_max, seconds_max)
    finally:
        with suppress(duckdb.Error):  # a query that failed may have ended the transaction by itself
            cursor.execute("ROLLBACK")


def _run(cursor: Any, sql: str, rows_max: int | None, seconds_max: float) -> pa.Table:
    over = threading.Event()

    def stop() -> None:
        over.set()
        cursor.interrupt()

    timer = threading.Timer(seconds_max, stop)
    timer.daemon = True
    timer.start()
    try:
        return _rows(cursor, sql, rows_max)
    except (duckdb.Error, OSError) as error:  # Arrow's reader makes an OSError of what DuckDB says
        if over.is_set():
            raise TransientError(
                f"the query took more than {seconds_max:g} seconds and was stopped",
                fix="ask for less: filter by a key or a time, or read a table instead of computing from rows",
            ) from error
        raise RefusedError(
            str(error).strip(), fix="correct the query; `headrace tables` lists what there is"
        ) from error
    finally:
        timer.cancel()


def check_query(cursor: Any, sql: str) -> Any:
    """Return the tree of one SELECT, or EXPLAIN of one. Raises RefusedError for what does not only read."""
    try:
        statements = cursor.extract_statements(sql)
    except duckdb.Error as error:
        raise RefusedError(str(error).strip(), fix="correct the query") from error
    if not statements:
        raise RefusedError("the query is empty", fix="write a SELECT; `headrace tables` lists what there is")
    if len(statements) != 1:
        raise RefusedError(f"{len(statements)} statements", fix="ask one SELECT at a time")
    kind = statements[0].type
    if kind not in (duckdb.StatementType.SELECT, duckdb.StatementType.EXPLAIN):
        raise RefusedError(
            f"{kind.name} statements are refused: the store is written by the engine only",
            fix="write a SELECT",
        )
    explained = _EXPLAIN.match(sql) if kind == duckdb.StatementType.EXPLAIN else None
    text = sql[explained.end() :] if explained else sql
    answer = json.loads(cursor.execute("SELECT json_serialize_sql(?::VARCHAR)", [text]).fetchone()[0])
    if answer["error"]:
        raise RefusedError(str(answer["error_message"]), fix="write a SELECT, or EXPLAIN and a SELECT")
    for name, gives_rows in _functions_in(answer["statements"]):
        known = name in _TABLE_FUNCTIONS or name.startswith(_TABLE_FUNCTION_PREFIXES)
        if name in _EFFECTFUL_FUNCTIONS or (gives_rows and not known):
            raise RefusedError(
                f"the function {name} is refused: a query only reads the tables of the store",
                fix="`headrace tables` lists what there is to read",
            )
    return answer["statements"]


def _functions_in(node: Any) -> Iterator[tuple[str, bool]]:
    """Give the name of every function in the tree of a query, and whether it stands where a table does."""
    if isinstance(node, dict):
        gives_rows = node.get("type") == "TABLE_FUNCTION"
        call = node["function"] if gives_rows else node
        if "function_name" in call:
            yield str(call["function_name"]).lower(), gives_rows
        parts = [*node.values(), *(call.values() if gives_rows else ())]
        node = [part for part in parts if part is not call]
    if isinstance(node, list):
        for part in node:
            yield from _functions_in(part)


def _rows(cursor: Any, sql: str, rows_max: int | None) -> pa.Table:
    relation, kinds = with_texts(cursor, sql)
    if relation is None:
        raise RefusedError("the statement gives no rows", fix="write a SELECT")
    types = dict(zip(relation.columns, kinds, strict=True))
    if rows_max is None:
        return typed(with_large_numbers(relation.to_arrow_table(), kinds), types)
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
    return typed(with_large_numbers(pa.Table.from_batches(batches, schema), kinds), types)
