"""Finds the rows on which a table's row part fails; the others are computed without them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from headrace.engine.local.queries import Queries
from headrace.errors import HeadraceError
from headrace.sql.syntax import Node, QueryError, Syntax, constant, walk

__all__ = ["FailedRow", "reason_of", "set_aside"]

_REASON_CHARACTERS = 300
_REASONS = 20


@dataclass(frozen=True)
class FailedRow:
    """One accepted row on which a table's row part failed, and DuckDB's words for it without the values.

    The words are asked for the first rows of a batch only; behind them they are empty.
    """

    partition: int
    offset: int
    reason: str


def set_aside(queries: Queries, row_sql: str, rows: pa.Table) -> tuple[pa.Table, list[FailedRow]]:
    """Return the rows on which the row part works, and the others; leaves any of them in place as "_rows".

    One statement finds them, however many they are. What it cannot express (a subquery, a random number), and
    what it cannot tell (whether a condition is reached that another one guards), is found by halves, at a
    statement or two for each halving of each failing row.
    """
    queries.batch(rows)
    good, suspects, bad = rows, rows.slice(0, 0), rows.slice(0, 0)
    probe = _probe(row_sql)
    if probe is not None:
        try:
            found = queries.table(probe)
        except (duckdb.Error, HeadraceError) as error:
            queries.raise_crowded(error)
        else:
            certain = found.column("_certain")
            good, rest = _parted(rows, found)
            suspects, bad = _parted(rest, found.filter(certain))
    failed = [
        FailedRow(row["_partition"], row["_offset"], "")
        for row in bad.slice(_REASONS).select(["_partition", "_offset"]).to_pylist()
    ]
    told: list[FailedRow] = []
    parts = [
        part
        for some in (bad.slice(0, _REASONS), suspects, good)
        for part in _by_halves(queries, row_sql, some, told)
    ]
    return pa.concat_tables(parts) if parts else rows.slice(0, 0), told + failed


def _parted(rows: pa.Table, found: pa.Table) -> tuple[pa.Table, pa.Table]:
    """Return the rows whose addresses are not in `found`, and those whose are."""
    mask = pa.array(np.isin(_addresses(rows), _addresses(found)))
    return rows.filter(pa.compute.invert(mask)), rows.filter(mask)


def _addresses(rows: pa.Table) -> npt.NDArray[np.int64]:
    """Return partition and offset of every row in one number."""
    partition, offset = (rows.column(name).to_numpy() for name in ("_partition", "_offset"))
    numbers: npt.NDArray[np.int64] = (partition.astype(np.int64) << 48) | offset
    return numbers


@lru_cache(maxsize=256)
def _probe(row_sql: str) -> str | None:
    """Return the query that gives the addresses of rows that may fail; None when there is no such query.

    An attempt at `x IS NOT NULL` is NULL exactly where `x` fails. "_certain" says that the row fails: a row
    that is not may be in the table, because WHERE leaves a condition out where another one has decided, and
    inside TRY every one is computed.
    """
    connection = duckdb.connect(":memory:", config={"threads": 1})
    try:
        syntax = Syntax(connection)
        node = syntax.read(row_sql)
        source = syntax.write({**node, "select_list": [constant("INTEGER", "1")], "where_clause": None})
        items = [syntax.write_expression(item) for item in node["select_list"]]
        where = syntax.write_expression(node["where_clause"]) if node["where_clause"] else "true"
        held = f"{items[1]} >= 0"  # true of every row
        certain = _certainly_fails(node["where_clause"], syntax, held) if node["where_clause"] else "false"
    except QueryError:
        return None
    finally:
        connection.close()
    failing = " OR ".join(_fails(item, held) for item in items)
    _, _, source = source.partition(" FROM ")
    tried = _attempt(where, held)
    return (
        f"SELECT {items[0]} AS _partition, {items[1]} AS _offset, "
        f"bool_or({tried} IS NOT NULL OR ({certain})) AS _certain FROM {source} "
        f"WHERE {_fails(where, held)} OR ({tried} AND ({failing})) GROUP BY 1, 2"
    )


def _attempt(expression: str, held: str) -> str:
    # What expressions have in common DuckDB computes before them, outside of TRY; a CASE it leaves whole.
    return f"CASE WHEN {held} THEN TRY({expression}) END"


def _fails(expression: str, held: str) -> str:
    return f"{_attempt(f'({expression}) IS NOT NULL', held)} IS NULL"


def _certainly_fails(condition: Node, syntax: Syntax, held: str) -> str:
    """Return the condition under which another one fails in whatever order its parts are looked at.

    One of its parts certainly fails, and no other part could decide without it.
    """
    if condition["type"] == "OPERATOR_NOT":
        return _certainly_fails(condition["children"][0], syntax, held)
    if condition["class"] != "CONJUNCTION":
        # One in another expression may leave something out, too.
        inside = any(part.get("class") == "CONJUNCTION" for part in walk(condition))
        return "false" if inside else _fails(syntax.write_expression(condition), held)
    failing, settled = [], []
    for part in condition["children"]:
        text, certain = syntax.write_expression(part), _certainly_fails(part, syntax, held)
        true = f"coalesce({_attempt(text, held)}, false)"
        undecided = f"NOT ({_fails(text, held)} OR {true})" if condition["type"] == "CONJUNCTION_OR" else true
        failing.append(f"({certain})")
        settled.append(f"(({certain}) OR {undecided})")
    return f"({' OR '.join(failing)}) AND {' AND '.join(settled)}"


def _by_halves(queries: Queries, row_sql: str, rows: pa.Table, failed: list[FailedRow]) -> list[pa.Table]:
    """Return parts of `rows` on which the row part works; adds the other rows to `failed`."""
    if not rows.num_rows:
        return []
    failure = _look(queries, row_sql, rows)
    if failure is None:
        return [rows]
    if rows.num_rows == 1:
        failed.append(failure)
        return []
    half = rows.num_rows // 2
    first = _by_halves(queries, row_sql, rows.slice(0, half), failed)
    return first + _by_halves(queries, row_sql, rows.slice(half), failed)


def _look(queries: Queries, row_sql: str, rows: pa.Table) -> FailedRow | None:
    """Return the first of `rows` with what the row part says about them all; None when it works on them."""
    queries.batch(rows)
    try:
        queries.table(row_sql)
    except (duckdb.Error, HeadraceError) as error:
        queries.raise_crowded(error)
        address = rows.slice(0, 1).select(["_partition", "_offset"]).to_pylist()[0]
        return FailedRow(address["_partition"], address["_offset"], reason_of(error))
    return None


def reason_of(error: BaseException) -> str:
    """Return the first line of what DuckDB says, and not too much of it."""
    return str(error).split("\n", 1)[0][:_REASON_CHARACTERS]
