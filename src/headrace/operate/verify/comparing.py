"""Compares what two stores hold of one pipeline: every table, outcomes, dead letters and late rows."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any

import duckdb
import pyarrow as pa

from headrace.rows.database import arrow_of
from headrace.sql.plan import PipelinePlan, TableClass, TablePlan
from headrace.store import Store
from headrace.store.names import quoted, state_name
from headrace.store.schema import groups_sql, having_condition, key_columns, result_columns

__all__ = ["ABSENT", "DIFFERENCES_MAX", "ROW", "Compared", "Difference", "compare_stores", "same"]

DIFFERENCES_MAX = 50
"""So many differences of one table are told; all are counted."""

ROW = "(row)"
"""Stands for a column where one engine has a row and the other has none."""

ABSENT = "(absent)"

_RELATIVE, _ABSOLUTE = 1e-9, 1e-12
_SECONDS_MAX = 3600.0
_FLOATS = ("DOUBLE", "FLOAT")
_ADDRESS = ("_partition", "_offset")
_ONLY = "_key_"
"""The key of a table that has one row."""


@dataclass(frozen=True)
class Difference:
    """One cell, or one row (`column` is ROW), that the engines do not agree on.

    key      what tells the row: columns and values; of a row without a key all its values
    found    the key as the state holds it, by which the records behind are looked up
    records  addresses of records behind it, STREAM/PARTITION/OFFSET; `behind` is how many there are
    """

    key: Mapping[str, Any]
    column: str
    local: Any
    spark: Any
    found: Mapping[str, Any]
    records: tuple[str, ...] = ()
    behind: int = 0


@dataclass(frozen=True)
class Compared:
    """One thing that was compared. `kind` is table, view, outcomes, counts, dead letters or late rows."""

    kind: str
    name: str
    rows_local: int
    rows_spark: int
    different: int = 0
    differences: tuple[Difference, ...] = ()

    @property
    def title(self) -> str:
        """What it is called in a report."""
        return f"{self.kind} '{self.name}'" if self.name else self.kind


@dataclass(frozen=True)
class _Relation:
    """A query to be asked of both stores.

    keys    columns that tell its rows, named `_key_…` where the query adds them, and how they are called
    hidden  columns that are not compared, for looking up records
    """

    sql: str
    keys: Mapping[str, str]
    hidden: tuple[str, ...] = ()


def compare_stores(plan: PipelinePlan, local: Store, spark: Store) -> Iterator[Compared]:
    """Give what comparing two stores found, thing by thing; the stores are only read."""
    yield _compared("outcomes", "", _outcomes(local), _outcomes(spark), _same_names("stream", "outcome"))
    yield _compared("counts", "", _counts(local), _counts(spark), _same_names("table", "count"))
    for table in plan.tables:
        relation = _relation_of(table)
        kind = "view" if table.kind is TableClass.VIEW else "table"
        yield _asked(kind, table.name, relation, local, spark)
    letters = _Relation(
        'SELECT stream, partition, "offset", outcome, reasons, event_time, "key", "value" FROM dead_letters',
        _same_names("stream", "partition", "offset"),
    )
    yield _asked("dead letters", "", letters, local, spark)
    for stream in plan.streams:
        late = _Relation(f"SELECT * FROM {quoted(f'late_{stream}')}", _same_names(*_ADDRESS))
        yield _asked("late rows", stream, late, local, spark)


def _relation_of(table: TablePlan) -> _Relation:
    if table.kind is TableClass.VIEW:
        return _Relation(f"SELECT * FROM {quoted(table.name)}", {})
    if table.kind is TableClass.ROWS:
        # Of identical copies in two partitions either may be the one that counts: addresses may differ.
        shown = ", ".join(quoted(column.name) for column in table.columns)
        sql = f"SELECT {shown}, _partition, _offset FROM {state_name(table.name)}"
        return _Relation(sql, _same_names(*table.key), _ADDRESS)
    bounds = ["window_start", "window_end"] if table.window is not None else []
    names = list(dict.fromkeys([*key_columns(table), *bounds]))
    keys = ", ".join(f"{name} AS {quoted('_key_' + name.strip(chr(34)))}" for name in names)
    sql = (
        f'WITH "_groups" AS ({groups_sql(table)}) '
        f'SELECT {keys or f"0 AS {_ONLY}"}, {result_columns(table)} FROM "_groups"{having_condition(table)}'
    )
    # By the names that the user gave them, where they are shown.
    known = dict(zip(table.result_sql, (column.name for column in table.columns), strict=True))
    told = {
        f"_key_{name.strip(chr(34))}": known.get(name, known.get(name.strip(chr(34)), name.strip(chr(34))))
        for name in names
        if name != "window_end"  # a session that reaches further is the same session, with another value
    }
    return _Relation(sql, told or {_ONLY: ""}, ("_key_window_end",) if "window_end" in names else ())


def _same_names(*names: str) -> dict[str, str]:
    return {name: name for name in names}


def _outcomes(store: Store) -> pa.Table:
    """Outcomes by stream: which of two copies in different partitions counts is not settled."""
    ledger = store.ledger()
    counted: dict[tuple[str, str], int] = {}
    for line in ledger.lanes:
        lane = line.stream if line.lane == "main" else f"{line.stream} ({line.lane})"
        for outcome, records in line.outcomes.items():
            counted[lane, str(outcome)] = counted.get((lane, str(outcome)), 0) + records
        for name in ("gaps", "lost"):
            counted[lane, name] = counted.get((lane, name), 0) + int(getattr(line, name))
    rows = [{"stream": s, "outcome": o, "records": n} for (s, o), n in counted.items() if n]
    return pa.Table.from_pylist(
        rows, pa.schema([("stream", pa.string()), ("outcome", pa.string()), ("records", pa.int64())])
    )


def _counts(store: Store) -> pa.Table:
    rows = [
        {"table": line.table, "count": name, "records": getattr(line, name)}
        for line in store.ledger().tables
        for name in ("accepted", "kept", "filtered", "failed")
    ]
    return pa.Table.from_pylist(
        rows, pa.schema([("table", pa.string()), ("count", pa.string()), ("records", pa.int64())])
    )


def _asked(kind: str, name: str, relation: _Relation, local: Store, spark: Store) -> Compared:
    ours, theirs = (store.query(relation.sql, seconds_max=_SECONDS_MAX) for store in (local, spark))
    return _compared(kind, name, ours, theirs, relation.keys, relation.hidden)


def _compared(
    kind: str,
    name: str,
    local: pa.Table,
    spark: pa.Table,
    keys: Mapping[str, str],
    hidden: Sequence[str] = (),
) -> Compared:
    """Compare two relations of the same columns; rows without keys are told by their values."""
    result = Compared(kind, name, local.num_rows, spark.num_rows)
    found: list[Difference] = []
    different = 0
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        connection.register("_local", local)
        connection.register("_spark", spark)
        candidates = _candidates(connection, local.column_names, keys, hidden)
        for row in candidates:
            for one in _differences(row, local.column_names, keys, hidden):
                different += 1
                if len(found) < DIFFERENCES_MAX:
                    found.append(one)
    return replace(result, different=different, differences=tuple(found))


def _candidates(
    connection: Any, names: Sequence[str], keys: Collection[str], hidden: Sequence[str]
) -> Iterator[dict[str, Any]]:
    """Give pairs of rows that may differ: `l_…` and `r_…`, and `_l`, `_r` where there is such a row."""
    types = dict(connection.execute("SELECT column_name, column_type FROM (DESCRIBE FROM _local)").fetchall())
    compared = [name for name in names if name not in hidden and name not in keys]
    told = list(keys)
    number = ""
    if not keys:
        # Rows of the same values are counted off; of doubles, which may differ in the last bits, by size.
        doubles = [quoted(name) for name in compared if types[name] in _FLOATS]
        others = [quoted(name) for name in compared if types[name] not in _FLOATS]
        part = f"PARTITION BY {', '.join(others)} " if others else ""
        order = f"ORDER BY {', '.join(doubles)}" if doubles else ""
        number = f", row_number() OVER ({part}{order}) AS _number"
        told = [name for name in compared if types[name] not in _FLOATS] + ["_number"]
        compared = [name for name in compared if types[name] in _FLOATS]
    on = " AND ".join(f"l.{quoted(name)} IS NOT DISTINCT FROM r.{quoted(name)}" for name in told) or "true"
    unequal = " OR ".join(_unequal(name, types[name]) for name in compared) or "false"
    columns = ", ".join(
        f"{side}.{quoted(name)} AS {quoted(f'{side}_{name}')}" for side in ("l", "r") for name in names
    )
    # An order of its own: what is told of many differences is the same every time.
    order = ", ".join(f"coalesce(l.{quoted(name)}, r.{quoted(name)})" for name in told) or "1"
    found = arrow_of(
        connection,
        f"SELECT l._here AS _l, r._here AS _r, {columns} "
        f"FROM (SELECT *, true AS _here{number} FROM _local) l "
        f"FULL JOIN (SELECT *, true AS _here{number} FROM _spark) r ON {on} "
        f"WHERE l._here IS NULL OR r._here IS NULL OR {unequal} ORDER BY {order}",
    )
    for batch in found.to_batches(max_chunksize=1000):
        yield from batch.to_pylist()


def _unequal(name: str, kind: str) -> str:
    left, right = f"l.{quoted(name)}", f"r.{quoted(name)}"
    distinct = f"{left} IS DISTINCT FROM {right}"
    if kind not in _FLOATS:
        return distinct
    near = (
        f"isfinite({left}) AND isfinite({right}) AND abs({left} - {right}) <= "
        f"greatest({_RELATIVE} * greatest(abs({left}), abs({right})), {_ABSOLUTE})"
    )
    return f"({distinct} AND NOT coalesce({near}, false))"


def _differences(
    row: Mapping[str, Any], names: Sequence[str], keys: Mapping[str, str], hidden: Sequence[str]
) -> Iterator[Difference]:
    ours, theirs = row["_l"], row["_r"]
    side = "l" if ours else "r"
    found = {name: row[f"{side}_{name}"] for name in (*(keys or names), *hidden)}
    shown = {keys.get(name, name): found[name] for name in (keys or names) if name not in (*hidden, _ONLY)}
    if not (ours and theirs):
        whole = {name: row[f"{side}_{name}"] for name in names if name not in hidden and name[:5] != "_key_"}
        yield Difference(shown, ROW, whole if ours else ABSENT, whole if theirs else ABSENT, found)
        return
    for name in names:
        if name not in hidden and name not in keys and not same(row[f"l_{name}"], row[f"r_{name}"]):
            yield Difference(shown, name, row[f"l_{name}"], row[f"r_{name}"], found)


def same(one: Any, other: Any) -> bool:
    """Whether two values of a cell are equal: exactly, doubles by a relative tolerance, also in lists."""
    if isinstance(one, float) and isinstance(other, float):
        if math.isnan(one) or math.isnan(other):
            return math.isnan(one) and math.isnan(other)
        return math.isclose(one, other, rel_tol=_RELATIVE, abs_tol=_ABSOLUTE)
    if isinstance(one, Decimal) and isinstance(other, Decimal):
        return one == other
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return list(one) == list(other) and all(same(one[name], other[name]) for name in one)
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(_each_same(zip(one, other, strict=True)))
    return type(one) is type(other) and bool(one == other)


def _each_same(pairs: Iterable[tuple[Any, Any]]) -> Iterator[bool]:
    return (same(one, other) for one, other in pairs)
