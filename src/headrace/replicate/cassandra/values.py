"""Arrow columns as values that Cassandra's driver binds, and the identity of rows that have no key."""

from __future__ import annotations

import hashlib
import json
import uuid
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import date, datetime, time
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

__all__ = ["bound_column", "finer_than_millis", "row_ids"]

_DAY_ZERO = 2**31  # Cassandra counts days so that 1970-01-01 is in the middle
_MICROS_OF = {"s": 1_000_000, "ms": 1_000, "us": 1}


def bound_column(column: pa.ChunkedArray, kind: str) -> list[Any]:
    """Return the values of a column for Cassandra's type `kind`; NULL is None.

    A timestamp keeps milliseconds: Cassandra's type holds no more.
    """
    if kind == "timestamp":
        return [None if value is None else value // 1000 for value in _micros(column).to_pylist()]
    if kind == "date":
        days = column.cast(pa.date32()).cast(pa.int32()).to_pylist()
        return [None if value is None else value + _DAY_ZERO for value in days]
    if kind == "time":
        micros = column.cast(pa.time64("us")).cast(pa.int64()).to_pylist()
        return [None if value is None else value * 1000 for value in micros]
    values: list[Any] = column.to_pylist()
    make = _MAKERS.get(kind)
    return values if make is None else [None if value is None else make(value) for value in values]


def finer_than_millis(column: pa.ChunkedArray) -> list[bool]:
    """Return for each instant whether Cassandra would cut it: in a key, two of them could become one."""
    return [value is not None and value % 1000 != 0 for value in _micros(column).to_pylist()]


def row_ids(values: Sequence[Sequence[Any]], versions: Sequence[int]) -> list[str]:
    """Return an identity for each row that nothing tells apart; the same for the same rows of an epoch.

    Rows that are equal in everything are numbered, so a chunk keeps as many of them as it has.
    """
    seen: Counter[str] = Counter()
    found = []
    for version, *cells in zip(versions, *values, strict=True):
        digest = hashlib.sha256(json.dumps([version, cells], default=str).encode()).hexdigest()[:40]
        found.append(f"{digest}-{seen[digest]}")
        seen[digest] += 1
    return found


def _micros(column: pa.ChunkedArray) -> pa.ChunkedArray:
    if not pa.types.is_timestamp(column.type):
        return pa.chunked_array([pa.nulls(len(column), pa.int64())])
    if column.type.unit == "ns":
        return pc.divide(column.cast(pa.int64()), 1000)
    return pc.multiply(column.cast(pa.int64()), _MICROS_OF[column.type.unit])


def _text(value: Any) -> str:
    """Return a value as text that reads back as the same."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Decimal):
        return format(value, "f")
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, pa.MonthDayNano):
        return f"P{value.months}M{value.days}DT{Decimal(value.nanoseconds).scaleb(-9).normalize():f}S"
    return str(value)


_MAKERS: dict[str, Callable[[Any], Any]] = {
    "text": _text,
    "uuid": lambda value: value if isinstance(value, uuid.UUID) else uuid.UUID(str(value)),
    "varint": int,
    "decimal": Decimal,
}
