"""Rows in the types of Parquet files, and which rows do not fit, so that the others are written."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

import pyarrow as pa

from headrace.replicate.columns import fitted
from headrace.replicate.protocol import REFUSED_MAX

__all__ = ["but", "held", "held_keys"]


def held(
    rows: pa.Table, schema: pa.Schema, odd: Mapping[int, str], *, odd_max: int = REFUSED_MAX
) -> tuple[pa.Table, dict[int, str]]:
    """Return the rows that files can hold, in the types of `schema`, and why each other row is not there.

    `odd` are rows that are known not to be. When more than `odd_max` are odd, the rows that come back are not
    fitted. Raises pa.ArrowException, whose text may hold values, for a type that no file holds.
    """
    try:
        return _fitted(but(rows, odd), schema), dict(odd)
    except pa.ArrowInvalid:  # too rare to be looked for in every batch
        found = {**_misfits(rows, schema, odd_max), **odd}
        return (_fitted(but(rows, found), schema) if len(found) <= odd_max else rows), found


def held_keys(removed: pa.Table, schema: pa.Schema, odd: Collection[int] = ()) -> pa.Table:
    """Return the removed keys that files can hold, however many others there are.

    A key that could not be written is not there to be removed.
    """
    return held(removed, schema, dict.fromkeys(odd, ""), odd_max=removed.num_rows)[0]


def but(rows: pa.Table, odd: Collection[int]) -> pa.Table:
    """Return rows without those of these numbers."""
    return rows.filter(pa.array([index not in odd for index in range(rows.num_rows)])) if odd else rows


def _fitted(rows: pa.Table, schema: pa.Schema) -> pa.Table:
    rows = fitted(rows, schema)
    written = pa.schema([(field.name, _written(field.type)) for field in rows.schema])
    if written != rows.schema:
        rows.cast(written)
    return rows


def _misfits(rows: pa.Table, schema: pa.Schema, most: int) -> dict[int, str]:
    """Return the rows with a value that does not fit, and why; no more than one too many."""
    found = dict[int, str]()
    for field in schema:
        if field.name not in rows.schema.names:
            continue
        why = f"'{field.name}' has a value that the files cannot hold as {field.type}"
        for index in _odd(rows.select([field.name]), schema, range(rows.num_rows)):
            found.setdefault(index, why)
            if len(found) > most:
                return found
    return found


def _odd(column: pa.Table, schema: pa.Schema, among: range) -> Iterator[int]:
    """Give the rows of a column that do not fit, by halves."""
    try:
        # Not a slice: of one, Arrow casts the items of lists that are not in it, too.
        _fitted(column.take(pa.array(among, pa.int64())), schema)
    except pa.ArrowInvalid:
        if len(among) == 1:
            yield among[0]
            return
        half = len(among) // 2
        yield from _odd(column, schema, among[:half])
        yield from _odd(column, schema, among[half:])


def _written(kind: pa.DataType) -> pa.DataType:
    """Return the type that Parquet has for one of Arrow's: it knows no instants of whole seconds."""
    if pa.types.is_timestamp(kind) and kind.unit == "s":
        return pa.timestamp("ms", kind.tz)
    if pa.types.is_list(kind):
        return pa.list_(_written(kind.value_type))
    if pa.types.is_map(kind):
        return pa.map_(_written(kind.key_type), _written(kind.item_type))
    if pa.types.is_struct(kind):
        return pa.struct([pa.field(each.name, _written(each.type)) for each in kind])
    return kind
