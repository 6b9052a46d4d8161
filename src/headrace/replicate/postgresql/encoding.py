"""Arrow tables in PostgreSQL's binary COPY format, a column at a time.

Format: "COPY", Binary Format, in PostgreSQL's manual; the bytes of each type are what its `…_recv` function
reads. Rows are put together with NumPy: a Python object for every value would be slower than the server.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from decimal import Context, Decimal
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

__all__ = ["HEADER", "TRAILER", "encode_rows"]

HEADER = b"PGCOPY\n\xff\r\n\0" + bytes(8)
TRAILER = b"\xff\xff"

_EPOCH_MICROS = 946_684_800_000_000  # 2000-01-01 in microseconds since 1970
_EPOCH_DAYS = 10_957
_FIRST_MICROS = -211_813_488_000_000_000  # 4713-11-24 BC, the first instant that PostgreSQL has, since 2000
_FIRST_DAY = -2_451_545
_GROUP = 10_000
_GROUPS = 5  # of four decimal digits: enough for every 64-bit number
_NUMERIC_MAX = 2**62
_WIDE = Context(prec=60)

Bytes = np.ndarray[Any, np.dtype[np.uint8]]
Numbers = np.ndarray[Any, np.dtype[np.int64]]
Nulls = np.ndarray[Any, np.dtype[np.bool_]] | None


@dataclass
class _Cells:
    """The values of a column: `data` holds them one after the other, `lengths` says how long each is.

    `width` is their length when all have the same and none is NULL, `nulls` is True where there is no value.
    """

    data: Bytes
    lengths: Numbers
    nulls: Nulls
    width: int | None


def encode_rows(table: pa.Table, kinds: list[str]) -> bytes:
    """Return the rows of `table` without header and trailer; `kinds` are PostgreSQL's types."""
    if not table.num_rows:
        return b""
    columns = [_cells(table.column(i), kind) for i, kind in enumerate(kinds)]
    if all(column.width is not None and column.nulls is None for column in columns):
        return _fixed_rows(table.num_rows, columns)
    return _ragged_rows(table.num_rows, columns)


def _fixed_rows(rows: int, columns: list[_Cells]) -> bytes:
    width = 2 + sum(4 + (column.width or 0) for column in columns)
    out = np.empty((rows, width), np.uint8)
    out[:, 0:2] = np.frombuffer(len(columns).to_bytes(2, "big"), np.uint8)
    at = 2
    for column in columns:
        size = column.width or 0
        out[:, at : at + 4] = np.frombuffer(size.to_bytes(4, "big"), np.uint8)
        out[:, at + 4 : at + 4 + size] = column.data.reshape(rows, size)
        at += 4 + size
    return out.tobytes()


def _ragged_rows(rows: int, columns: list[_Cells]) -> bytes:
    total = np.full(rows, 2 + 4 * len(columns), np.int64)
    for column in columns:
        total += column.lengths
    ends = np.cumsum(total)
    at = ends - total
    out = np.empty(int(ends[-1]), np.uint8)
    _put(out, at, np.frombuffer(np.full(rows, len(columns), ">i2").tobytes(), np.uint8), 2)
    at = at + 2
    for column in columns:
        said = column.lengths
        if column.nulls is not None:
            said = np.where(column.nulls, -1, said)
        _put(out, at, np.frombuffer(said.astype(">i4").tobytes(), np.uint8), 4)
        at = at + 4
        if column.width is not None and column.nulls is None:
            _put(out, at, column.data, column.width)
        elif len(column.data):
            # The place of each byte: where its value starts in the row, less where it starts in the column.
            before = np.cumsum(column.lengths) - column.lengths
            places = np.repeat(at - before, column.lengths)
            places += np.arange(len(places))
            out[places] = column.data
        at = at + column.lengths
    return out.tobytes()


def _put(out: Bytes, at: Numbers, data: Bytes, width: int) -> None:
    """Write `width` bytes of `data` at each of the places `at`."""
    cells = data.reshape(len(at), width) if width else data
    for i in range(width):
        out[at + i] = cells[:, i]


# --- columns


def _cells(column: pa.ChunkedArray, kind: str) -> _Cells:
    values = column.combine_chunks()
    if isinstance(values, pa.ChunkedArray):
        values = values.chunk(0) if values.num_chunks else pa.array([], column.type)
    base = kind.split("(", 1)[0]
    values = _storable(values, base)
    nulls = None
    if values.null_count:
        nulls = values.is_null().to_numpy(zero_copy_only=False)
    if base in ("text", "bytea", "jsonb"):
        return _ragged(values, nulls, prefix=b"\x01" if base == "jsonb" else b"")
    if base == "numeric":
        return _numeric(values, nulls)
    if base == "uuid":
        texts = values.to_pylist()  # rare enough to be made one by one
        return _joined([b"" if text is None else uuid.UUID(str(text)).bytes for text in texts], nulls)
    return _fixed(_plain(values, base), len(values), nulls)


def _storable(values: pa.Array, base: str) -> pa.Array:
    """Return instants of other units in microseconds, and what has no type of its own as DuckDB writes it."""
    wanted = None
    if base.startswith("timestamp") and values.type.unit != "us":
        # Seconds go farther than microseconds: what is beyond becomes an instant that the server refuses.
        beyond = "coalesce(TRY_CAST(v AS TIMESTAMP), TIMESTAMP '290309-12-22 (BC) 00:00:00')"
        wanted = f"CASE WHEN v IS NOT NULL THEN {beyond} END"
    elif base == "text" and not (pa.types.is_string(values.type) or pa.types.is_large_string(values.type)):
        wanted = "v::VARCHAR"
    if wanted is None:
        return values
    with duckdb.connect() as connection:
        connection.register("_values", pa.table({"v": values}))
        cast = connection.sql(f"SELECT {wanted} AS v FROM _values").to_arrow_table()
    return pa.concat_arrays(cast.column("v").chunks)


def _plain(values: pa.Array, base: str) -> Bytes:
    """Return the bytes of values that all take the same room; NULL is some value."""
    if base == "boolean":
        flags = pc.fill_null(values, False).cast(pa.uint8()).to_numpy(zero_copy_only=False)
        return np.frombuffer(flags.tobytes(), np.uint8)
    if base == "interval":
        return _intervals(values)
    if base in ("double precision", "real"):
        floats = pc.fill_null(values, 0.0).to_numpy(zero_copy_only=False)
        return _big_endian(floats, ">f8" if base == "double precision" else ">f4")
    if base == "date":
        days = _integers(values, pa.int32())
        return _big_endian(_since_2000(days, _EPOCH_DAYS, _FIRST_DAY, 2**31 - 1), ">i4")
    if base.startswith("timestamp"):
        micros = _integers(values, pa.int64())
        return _big_endian(_since_2000(micros, _EPOCH_MICROS, _FIRST_MICROS, 2**63 - 1), ">i8")
    if base.startswith("time"):
        return _big_endian(_integers(values, pa.int64()), ">i8")
    width = {"smallint": ">i2", "integer": ">i4", "bigint": ">i8"}[base]
    return _big_endian(_integers(values, pa.int64()), width)


def _since_2000(values: Numbers, epoch: int, first: int, forever: int) -> Numbers:
    """Return instants since 1970 as PostgreSQL counts them. Infinite ones are infinite there, too.

    Any before its first one becomes the one before that, which the server refuses: moved by `epoch`, the
    earliest would no longer fit, and be instants of a far future.
    """
    moved = np.where(values < first + epoch, first - 1, values - epoch)
    endless: Numbers = np.where(values > 0, forever, -forever - 1)
    return np.where(np.abs(values) >= forever, endless, moved)


def _integers(values: pa.Array, kind: pa.DataType) -> Numbers:
    numbers: Numbers = pc.fill_null(values.cast(kind), 0).to_numpy(zero_copy_only=False).astype(np.int64)
    return numbers


def _big_endian(values: np.ndarray[Any, Any], kind: str) -> Bytes:
    return np.frombuffer(values.astype(kind).tobytes(), np.uint8)


def _intervals(values: pa.Array) -> Bytes:
    kind = np.dtype([("months", "<i4"), ("days", "<i4"), ("nanos", "<i8")])
    given = np.frombuffer(values.buffers()[1], kind, len(values), values.offset * kind.itemsize)
    made = np.empty(len(values), np.dtype([("micros", ">i8"), ("days", ">i4"), ("months", ">i4")]))
    made["micros"], made["days"], made["months"] = given["nanos"] // 1000, given["days"], given["months"]
    return np.frombuffer(made.tobytes(), np.uint8)


def _fixed(data: Bytes, rows: int, nulls: Nulls) -> _Cells:
    width = len(data) // rows
    if nulls is None:
        return _Cells(data, np.full(rows, width, np.int64), None, width)
    kept = data.reshape(rows, width)[~nulls].reshape(-1)
    return _Cells(kept, np.where(nulls, 0, width).astype(np.int64), nulls, None)


def _ragged(values: pa.Array, nulls: Nulls, *, prefix: bytes = b"") -> _Cells:
    """Texts and bytes; `prefix` stands before each value that is there."""
    if not pa.types.is_large_string(values.type) and not pa.types.is_large_binary(values.type):
        values = values.cast(pa.large_binary())
    offsets = np.frombuffer(values.buffers()[1], np.int64)[values.offset : values.offset + len(values) + 1]
    lengths = np.diff(offsets)
    raw = values.buffers()[2]
    data = np.empty(0, np.uint8) if raw is None else np.frombuffer(raw, np.uint8)[offsets[0] : offsets[-1]]
    if nulls is not None and lengths[nulls].any():
        data = data[np.repeat(~nulls, lengths)]
        lengths = np.where(nulls, 0, lengths)
    if not prefix:
        return _Cells(data, lengths, nulls, None)
    there = np.ones(len(lengths), bool) if nulls is None else ~nulls
    starts = (np.cumsum(lengths) - lengths)[there]
    return _Cells(np.insert(data, starts, prefix[0]), lengths + there.astype(np.int64), nulls, None)


def _joined(values: list[bytes], nulls: Nulls) -> _Cells:
    lengths = np.array([len(value) for value in values], np.int64)
    return _Cells(np.frombuffer(b"".join(values), np.uint8), lengths, nulls, None)


# --- numeric: count of groups of four decimal digits, weight of the first, sign, digits behind the point


def _numeric(values: pa.Array, nulls: Nulls) -> _Cells:
    if not pa.types.is_decimal(values.type):
        if not pa.types.is_integer(values.type):
            return _joined([_numeric_bytes(value) for value in values.to_pylist()], nulls)
        values = values.cast(pa.decimal128(20, 0))
    scale = values.type.scale
    halves = np.frombuffer(values.buffers()[1], "<i8").reshape(-1, 2)[
        values.offset : values.offset + len(values)
    ]
    low, high = halves[:, 0], halves[:, 1]
    if nulls is not None:
        low, high = np.where(nulls, 0, low), np.where(nulls, 0, high)
    fraction = -(-scale // 4)
    padding = 10 ** (4 * fraction - scale)
    most = _NUMERIC_MAX // padding
    # Both bounds: abs() of the least 64-bit number is that number.
    small = bool(((low >> 63) == high).all() and (low <= most).all() and (low >= -most).all())
    if not small:
        found = [low_.item() % 2**64 + (high_.item() << 64) for low_, high_ in zip(low, high, strict=True)]
        exact = [Decimal(number).scaleb(-scale, _WIDE) for number in found]
        there = [True] * len(exact) if nulls is None else (~nulls).tolist()
        return _joined([_numeric_bytes(v) if t else b"" for v, t in zip(exact, there, strict=True)], nulls)
    made = np.empty(
        len(low),
        np.dtype(
            [("count", ">i2"), ("weight", ">i2"), ("sign", ">i2"), ("scale", ">i2"), ("digits", ">i2", 5)]
        ),
    )
    made["count"], made["weight"], made["scale"] = _GROUPS, _GROUPS - fraction - 1, scale
    made["sign"] = np.where(low < 0, 0x4000, 0)
    rest = np.abs(low) * padding
    for group in range(_GROUPS - 1, -1, -1):
        rest, digits = np.divmod(rest, _GROUP)
        made["digits"][:, group] = digits
    return _fixed(np.frombuffer(made.tobytes(), np.uint8), len(low), nulls)


def _numeric_bytes(value: Decimal | int | str | None) -> bytes:
    """Return one value of any size."""
    if value is None:
        return b""
    sign, digits, exponent = Decimal(value).as_tuple()
    scale = max(0, -int(exponent))
    number = int("".join(map(str, digits))) * 10 ** max(0, int(exponent))
    fraction = -(-scale // 4)
    number *= 10 ** (4 * fraction - scale)
    groups: list[int] = []
    while number:
        number, group = divmod(number, _GROUP)
        groups.append(group)
    groups.reverse()
    head = (len(groups), len(groups) - fraction - 1, 0x4000 if sign else 0, scale)
    return b"".join(part.to_bytes(2, "big", signed=True) for part in (*head, *groups))
