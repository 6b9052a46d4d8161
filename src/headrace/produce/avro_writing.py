"""Writes many rows as Avro at once, column by column: for schemas as they follow from declared columns.

What is in no such schema (maps, numbers beyond 64 bits, unions of several types) is written record by record,
by `encoding`; the bytes are the same.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from headrace.declare import Column, DataType, ListType, ScalarType, StructType
from headrace.log.registry.avro_schema import AvroType

__all__ = ["ColumnWriter"]

Ints: TypeAlias = npt.NDArray[np.int64]
Write = Callable[[pa.Array], pa.Array]
"""Gives the bytes of each value; there is no NULL among them."""

_NOTHING = pa.scalar(b"", pa.binary())
_ZERO = pa.scalar(b"\x00", pa.binary())
_DIGITS_MAX = 18


class _Unsupported(Exception):
    pass


class ColumnWriter:
    """Makes the records of the schema `kind` from rows with the declared columns."""

    @staticmethod
    def of(kind: AvroType, columns: tuple[Column, ...]) -> ColumnWriter | None:
        """Return a writer, or None when the schema has something that is written record by record."""
        try:
            return ColumnWriter(kind, columns)
        except _Unsupported:
            return None

    def __init__(self, kind: AvroType, columns: tuple[Column, ...]) -> None:
        declared = {column.name: column for column in columns}
        self._writes: list[tuple[str, Write]] = []
        for field in kind.fields:
            column = declared.get(field.name)
            if column is None or (column.nullable and field.type.kind != "union"):
                raise _Unsupported
            self._writes.append((field.name, _writer(field.type, column.type)))

    def framed(self, rows: pa.Table, frame: bytes) -> pa.Array:
        """Return, as binary, `frame` and the record of each row."""
        if not rows.num_rows:
            return pa.array([], pa.binary())
        parts = [write(_one_array(rows.column(name))) for name, write in self._writes]
        if not parts:
            return pa.repeat(pa.scalar(frame, pa.binary()), rows.num_rows)
        return pc.binary_join_element_wise(pa.scalar(frame, pa.binary()), *parts, _NOTHING)


def _one_array(column: pa.ChunkedArray) -> pa.Array:
    return pa.concat_arrays(column.chunks)


def _writer(kind: AvroType, target: DataType) -> Write:
    """Return what writes values of a declared type as `kind`. Raises _Unsupported."""
    if kind.kind == "union":
        return _union(kind, target)
    if isinstance(target, ListType) and kind.kind == "array" and kind.inner.kind == "union":
        return _list(_writer(kind.inner, target.item))
    if isinstance(target, StructType) and kind.kind == "record":
        return _struct(kind, target)
    sql = target.sql if isinstance(target, ScalarType) else ""
    if sql.startswith("DECIMAL") and kind.kind == "bytes" and kind.logical == "decimal":
        precision, scale = (int(part) for part in sql[8:-1].split(","))
        if scale == kind.scale and precision <= min(kind.precision, _DIGITS_MAX):
            return lambda values: _decimal(values, scale)
    found = _SCALARS.get((sql, kind.kind, kind.logical))
    if found is None:
        raise _Unsupported
    return found


def _union(kind: AvroType, target: DataType) -> Write:
    others = [at for at, branch in enumerate(kind.branches) if branch.kind != "null"]
    if len(others) != 1 or len(kind.branches) != 2:
        raise _Unsupported
    (other,) = others
    inner = _writer(kind.branches[other], target)
    there = pa.scalar(bytes([2 * other]), pa.binary())
    nothing = pa.scalar(bytes([2 * (1 - other)]), pa.binary())

    def write(values: pa.Array) -> pa.Array:
        if not values.null_count:
            return pc.binary_join_element_wise(there, inner(values), _NOTHING)
        valid = np.asarray(values.is_valid())
        if not valid.any():
            return pa.repeat(nothing, len(values))
        found = pc.binary_join_element_wise(there, inner(values.drop_null()), _NOTHING)
        return pc.fill_null(found.take(pa.array(np.cumsum(valid) - 1, mask=~valid)), nothing)

    return write


def _list(item: Write) -> Write:
    def write(values: pa.Array) -> pa.Array:
        lengths = pc.list_value_length(values).cast(pa.int64())
        sizes = lengths.to_numpy()
        if not sizes.any():
            return pa.repeat(_ZERO, len(values))
        offsets = np.zeros(len(values) + 1, np.int32)
        offsets[1:] = np.cumsum(sizes)
        items = item(pc.list_flatten(values))
        joined = pc.binary_join(pa.ListArray.from_arrays(pa.array(offsets), items), _NOTHING)
        # A list is a block of items, unless it has none, and the end.
        counts = pc.if_else(pa.array(sizes > 0), _varints(lengths), _NOTHING)
        return pc.binary_join_element_wise(counts, joined, _ZERO, _NOTHING)

    return write


def _struct(kind: AvroType, target: StructType) -> Write:
    places = {name: place for place, (name, _) in enumerate(target.fields)}
    types = dict(target.fields)
    writes: list[tuple[int, Write]] = []
    for field in kind.fields:
        if field.name not in places or field.type.kind != "union":
            raise _Unsupported
        writes.append((places[field.name], _writer(field.type, types[field.name])))
    if not writes:
        raise _Unsupported

    def write(values: pa.Array) -> pa.Array:
        fields = values.flatten()
        return pc.binary_join_element_wise(*(each(fields[place]) for place, each in writes), _NOTHING)

    return write


def _long(values: pa.Array) -> pa.Array:
    return _varints(values.cast(pa.int64()))


def _varints(values: pa.Array, unit: int = 1) -> pa.Array:
    """Whole numbers, divided by `unit` and rounded down, as zigzag varints."""
    numbers: Ints = values.to_numpy() // unit if unit > 1 else values.to_numpy()
    rest = ((numbers << 1) ^ (numbers >> 63)).view(np.uint64)
    sizes = np.ones(len(rest), np.int64)
    for bits in range(7, 64, 7):
        sizes += rest >= np.uint64(1 << bits)
    starts = np.cumsum(sizes) - sizes
    data = np.empty(int(sizes.sum()), np.uint8)
    rows = np.arange(len(rest))
    for place in range(10):
        more = sizes[rows] > place + 1
        byte = (rest[rows] >> np.uint64(7 * place)).astype(np.uint8) & np.uint8(0x7F)
        data[starts[rows] + place] = byte | (more.astype(np.uint8) << np.uint8(7))
        rows = rows[more]
        if not len(rows):
            break
    return _binary(sizes, data)


def _binary(sizes: Ints, data: npt.NDArray[np.uint8]) -> pa.Array:
    offsets = np.zeros(len(sizes) + 1, np.int32)
    offsets[1:] = np.cumsum(sizes)
    buffers = [None, pa.py_buffer(offsets), pa.py_buffer(np.ascontiguousarray(data))]
    return pa.Array.from_buffers(pa.binary(), len(sizes), buffers)


def _sized(values: pa.Array) -> pa.Array:
    lengths = pc.binary_length(values).cast(pa.int64())
    return pc.binary_join_element_wise(_varints(lengths), values.cast(pa.binary()), _NOTHING)


def _widths(numbers: npt.NDArray[np.generic], kind: str) -> pa.Array:
    """Numbers that all have one width."""
    data = np.ascontiguousarray(numbers.astype(kind)).view(np.uint8)
    return _binary(np.full(len(numbers), np.dtype(kind).itemsize, np.int64), data)


def _decimal(values: pa.Array, scale: int) -> pa.Array:
    """Decimals of 18 digits at most: their size, and so many bytes of the number without its point."""
    wide = values.cast(pa.decimal128(38, scale))
    words = np.frombuffer(wide.buffers()[1], np.int64).reshape(-1, 2)
    numbers = words[wide.offset : wide.offset + len(wide), 0]
    sizes = np.ones(len(numbers), np.int64)
    for size in range(1, 8):
        sizes += np.abs(numbers) >= 1 << (8 * size - 1)
    digits = np.ascontiguousarray(numbers.astype(">i8")).view(np.uint8).reshape(-1, 8)
    table = np.hstack([(2 * sizes).astype(np.uint8)[:, None], digits])
    kept = np.arange(8) >= 8 - sizes[:, None]
    kept = np.hstack([np.ones((len(numbers), 1), np.bool_), kept])
    return _binary(sizes + 1, table[kept])


def _micros(unit: int) -> Write:
    return lambda values: _varints(values.cast(pa.timestamp("us", "UTC")).cast(pa.int64()), unit)


_SMALL = ("TINYINT", "SMALLINT", "INTEGER", "UTINYINT", "USMALLINT")
_INSTANT = "TIMESTAMP WITH TIME ZONE"
_SCALARS: dict[tuple[str, str, str], Write] = {
    **{(sql, kind, ""): _long for sql in _SMALL for kind in ("int", "long")},
    **{(sql, "long", ""): _long for sql in ("BIGINT", "UINTEGER")},
    ("DATE", "int", "date"): lambda values: _long(values.cast(pa.int32())),
    (_INSTANT, "long", "timestamp-micros"): _micros(1),
    (_INSTANT, "long", "timestamp-millis"): _micros(1_000),
    ("TIME", "long", "time-micros"): lambda values: _long(values.cast(pa.time64("us")).cast(pa.int64())),
    ("VARCHAR", "string", ""): _sized,
    ("BLOB", "bytes", ""): _sized,
    ("BOOLEAN", "boolean", ""): lambda values: _widths(values.cast(pa.uint8()).to_numpy(), "u1"),
    ("DOUBLE", "double", ""): lambda values: _widths(values.to_numpy(), "<f8"),
}
"""By declared type, Avro type and logical type. A FLOAT is rounded twice when it is written singly."""
