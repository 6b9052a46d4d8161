"""Dates and instants that a Delta table cannot hold: its days have four digits of years, its seconds six."""

from __future__ import annotations

from collections.abc import Iterable

import pyarrow as pa
import pyarrow.compute as pc

__all__ = ["beyond"]

_FIRST, _END = -719_162, 2_932_897  # days since 1970 of the first day of year 1, and of year 10000
_A_DAY = {"s": 86_400, "ms": 86_400_000, "us": 86_400_000_000}


def beyond(rows: pa.Table, folders: str | None) -> dict[int, str]:
    """Return the rows that have an infinite value, one not of the years 1 to 9999, or nanoseconds, and why.

    Looked at are dates, instants by which the table's `folders` are called, and those that must become
    microseconds. Other instants may be of any year.
    """
    found: dict[int, str] = {}
    for field in rows.schema:
        kind, values = field.type, rows.column(field.name)
        if pa.types.is_timestamp(kind) and kind.unit == "ns":  # they reach from 1677 to 2262
            why = f"'{field.name}' has nanoseconds, and Delta keeps microseconds"
            found |= dict.fromkeys(_finer(values), why)
        elif pa.types.is_date(kind) or (
            pa.types.is_timestamp(kind) and (field.name == folders or kind.unit != "us")
        ):
            why = f"'{field.name}' is not of the years 1 to 9999, which Delta takes"
            found |= dict.fromkeys(_outside(values), why)
    return found


def _outside(values: pa.ChunkedArray) -> Iterable[int]:
    if pa.types.is_date(values.type):
        a_day, numbers = 1, values.cast(pa.int32())
    else:
        a_day, numbers = _A_DAY[values.type.unit], values.cast(pa.int64())
    return _where(pc.or_(pc.less(numbers, _FIRST * a_day), pc.greater_equal(numbers, _END * a_day)))


def _finer(values: pa.ChunkedArray) -> Iterable[int]:
    numbers = values.cast(pa.int64())
    return _where(pc.not_equal(pc.multiply(pc.divide(numbers, 1000), 1000), numbers))


def _where(odd: pa.ChunkedArray) -> Iterable[int]:
    indices: list[int] = pc.indices_nonzero(pc.fill_null(odd, False)).to_pylist()
    return indices
