"""Looks at whole columns with NumPy, for what SQL would pay a multiple for.

Is what stands in a column what its record says? `json_transform` and casts are kinder than we are, so each
value is compared with the token that it was read from. The answer may name too many rows, never too few.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from headrace.declare import Column, DataType, ListType, MapType, ScalarType, StructType
from headrace.rows.decode import INSTANT, INTEGERS, TIMESTAMP_SHAPE, provable

__all__ = ["unproved_rows", "unproved_strings"]

Mask = npt.NDArray[np.bool_]
Bytes = npt.NDArray[np.uint8]
Offsets = npt.NDArray[np.int32]

_FIRST = -62_135_596_800_000_000  # 0001-01-01T00:00:00Z
_LAST = 253_402_300_799_999_999  # 9999-12-31T23:59:59.999999Z
_USUAL_LENGTHS = (20, 24, 27)


def _set_of(signs: bytes) -> Mask:
    members = np.zeros(256, np.bool_)
    members[[*signs]] = True
    return members


_DIGIT = _set_of(b"0123456789")
_IN_INTEGER = _set_of(b"0123456789-")
_IN_DECIMAL = _set_of(b"0123456789-.")
_IN_NUMBER = _set_of(b"0123456789+-.eE")
# What a value that was no string can begin with once json_transform has made a VARCHAR of it.
_STARTS = _set_of(b"0123456789-{[tf")
_TENTHS = (5, 3, 7, 2, 4, 6, 8, 9)


def unproved_rows(table: pa.Table, number: int, column: Column) -> Mask | None:
    """Return which rows of the doubting query's `table` are not proved in `column`, the schema's `number`th.

    None: every row is, but for its strings: they are `unproved_strings`. A column of a type that is not
    `provable` is doubted by the query and not looked at here.
    """
    values = table.column(column.name).chunks
    if not provable(column.type) or column.type.sql in ("VARCHAR", "JSON"):
        return None
    if isinstance(column.type, ScalarType):
        texts = table.column(f"_text_{number}").chunks
        masks = [_scalars(column.type.sql, *pair) for pair in zip(values, texts, strict=True)]
    else:
        texts, parts = table.column(f"_text_{number}").chunks, table.column(f"_parts_{number}").chunks
        masks = [_nested(column.type, *three) for three in zip(values, texts, parts, strict=True)]
    return _joined(values, masks)


def unproved_strings(values: pa.ChunkedArray, kind: DataType) -> Mask | None:
    """Return which rows hold a VARCHAR, at any depth, that may have been something else in the JSON.

    None: no row does. A number, `true`, `false`, a list and an object keep their text when json_transform
    makes a VARCHAR of them, so only a text that looks like one of these is in doubt.
    """
    return _joined(values.chunks, [_strings(kind, chunk) for chunk in values.chunks])


def _joined(chunks: list[Any], masks: list[Mask | None]) -> Mask | None:
    if all(mask is None for mask in masks):
        return None
    lengths = [len(chunk) for chunk in chunks]
    return np.concatenate(
        [np.zeros(n, np.bool_) if m is None else m for n, m in zip(lengths, masks, strict=True)]
    )


def _strings(kind: DataType, array: Any) -> Mask | None:
    """Rows with an unproved VARCHAR at any depth."""
    if isinstance(kind, ListType):
        return _rows_of(array, _strings(kind.item, array.flatten()))
    if isinstance(kind, MapType):
        # A map array whose offset is 0, as DuckDB gives it: `items` are the values of its rows.
        return _rows_of(array, _strings(kind.value, array.items))
    if isinstance(kind, StructType):
        return _either(
            [_strings(part, values) for (_, part), values in zip(kind.fields, array.flatten(), strict=True)]
        )
    return _unproved_texts(array) if kind.sql == "VARCHAR" else None


def _nested(kind: DataType, array: Any, texts: Any, parts: Any) -> Mask | None:
    """A provable list or struct: the token's first sign, then what is inside."""
    if array.null_count == len(array) == texts.null_count:
        return None
    data, offsets = _bytes_of(texts)
    sign = ord("[") if isinstance(kind, ListType) else ord("{")
    starts = offsets[:-1][np.diff(offsets) > 0]
    shape: Mask | None = None
    if (data[starts] != sign).any():
        shape = np.zeros(len(array), np.bool_)
        shape[np.flatnonzero(np.diff(offsets) > 0)[data[starts] != sign]] = True
    if isinstance(kind, StructType):
        return _either([shape, *_fields(kind, array, parts)])
    assert isinstance(kind, ListType)  # noqa: S101 - the only other kind that is provable
    items, item_parts = array.flatten(), parts.flatten()
    if isinstance(kind.item, StructType):
        hollow = np.asarray(item_parts.is_valid())
        for part in item_parts.flatten():
            hollow = hollow & np.asarray(part.is_null())
        # json_transform makes a struct of NULLs out of an item that is no object.
        inside = _either([hollow if hollow.any() else None, *_fields(kind.item, items, item_parts)])
    else:
        inside = _scalars(kind.item.sql, items, item_parts)
    return _either([shape, _rows_of(array, inside)])


def _fields(kind: StructType, array: Any, parts: Any) -> list[Mask | None]:
    columns = zip(kind.fields, array.flatten(), parts.flatten(), strict=True)
    return [_scalars(part.sql, values, texts) for (_, part), values, texts in columns]


def _scalars(kind: str, values: Any, texts: Any) -> Mask | None:
    """Rows whose value may not be what its token says."""
    if kind in ("VARCHAR", "JSON") or not len(values) or texts.null_count == len(texts):
        return None
    mask = np.zeros(len(values), np.bool_)
    if values.null_count != texts.null_count:
        mask |= np.asarray(pc.xor(values.is_null(), texts.is_null()))
    if kind == INSTANT:
        _mark_instants(values, texts, mask)
    elif kind in INTEGERS:
        # 1.0 and 1e2 cast to INTEGER as well, so the signs of the token decide.
        _mark_signs(texts, _IN_INTEGER, mask)
    elif kind.startswith("DECIMAL"):
        _mark_signs(texts, _IN_DECIMAL, mask)
        _mark_rounded(kind, texts, mask)
    elif kind in ("DOUBLE", "FLOAT"):
        _mark_signs(texts, _IN_NUMBER, mask)
        mask |= ~np.isfinite(np.asarray(values.fill_null(0)))
    return mask if mask.any() else None


def _bytes_of(texts: Any) -> tuple[Bytes, Offsets]:
    _, offsets_buffer, data_buffer = texts.buffers()
    offsets = np.frombuffer(offsets_buffer, np.int32)[texts.offset : texts.offset + len(texts) + 1]
    return np.frombuffer(data_buffer or b"", np.uint8), offsets


def _mark_signs(texts: Any, allowed: Mask, mask: Mask) -> None:
    """Mark the rows with a sign that is not `allowed`."""
    data, offsets = _bytes_of(texts)
    places = np.flatnonzero(~allowed[data[offsets[0] : offsets[-1]]]) + offsets[0]
    mask[np.searchsorted(offsets[1:], places, side="right")] = True


def _mark_rounded(kind: str, texts: Any, mask: Mask) -> None:
    """Mark what a double may have changed.

    A token that is not an integer went through a double, which keeps 15 digits. It says what the record says
    if it has no more decimals than the scale, so that nothing was rounded, and at most 15 digits.
    """
    precision, scale = (int(part) for part in kind.removeprefix("DECIMAL(").removesuffix(")").split(","))
    data, offsets = _bytes_of(texts)
    points = np.flatnonzero(data[offsets[0] : offsets[-1]] == ord(".")) + offsets[0]
    rows = np.searchsorted(offsets[1:], points, side="right")
    mask[rows[offsets[1:][rows] - points - 1 > scale]] = True
    if precision > 15:
        # The scale may add zeros: 1.5 at a scale of 20 has 15 digits of which the double knows no more.
        whole = points - offsets[:-1][rows]
        mask[rows[whole + scale > 15]] = True


def _mark_instants(values: Any, texts: Any, mask: Mask) -> None:
    """Mark the instants that DuckDB's cast takes and we do not: zones by name, spaces, years before 1."""
    bounds = pc.min_max(values.cast(pa.int64())).as_py()
    if bounds["min"] is not None and (bounds["min"] < _FIRST or bounds["max"] > _LAST):
        micros = np.asarray(values.cast(pa.int64()).fill_null(0))
        mask |= (micros < _FIRST) | (micros > _LAST)
    _mark_unusual(texts, mask)


def _mark_unusual(array: Any, mask: Mask) -> None:
    _, offsets_buffer, data_buffer = array.buffers()
    if data_buffer is None or not len(array):
        return
    offsets = np.frombuffer(offsets_buffer, np.int32)[array.offset : array.offset + len(array) + 1]
    starts, lengths = offsets[:-1], np.diff(offsets)
    data = np.frombuffer(data_buffer, np.uint8)
    usual = lengths == 0
    for length in _USUAL_LENGTHS:
        rows = np.flatnonzero(lengths == length)
        if len(rows):
            usual[rows] = _usual(data, starts[rows], length)
    rest = np.flatnonzero(~usual | (lengths == 0))
    if len(rest):
        fits = pc.match_substring_regex(array.take(pa.array(rest)), f"^({TIMESTAMP_SHAPE})$").fill_null(True)
        mask[rest] |= ~np.asarray(fits)


def _usual(data: Bytes, starts: npt.NDArray[np.int32], length: int) -> Mask:
    """Whether the texts are `YYYY-MM-DDTHH:MM:SS.ffffffZ`, with 0 to 6 digits after the second."""
    good = np.ones(len(starts), np.bool_)
    for at in range(length):
        values = data[starts + at]
        sign = b"----------T--:--:--."[at] if at in (4, 7, 10, 13, 16, 19) else 0
        sign = ord("Z") if at == length - 1 else sign
        good &= values == sign if sign else values - np.uint8(ord("0")) <= 9
    return good


def _either(masks: list[Mask | None]) -> Mask | None:
    found = [mask for mask in masks if mask is not None]
    return np.logical_or.reduce(found) if found else None


def _rows_of(array: Any, inside: Mask | None) -> Mask | None:
    if inside is None:
        return None
    lengths = np.zeros(len(array), np.int64)
    valid = np.asarray(array.is_valid())
    lengths[valid] = np.diff(np.asarray(array.offsets))[valid]
    mask = np.zeros(len(array), np.bool_)
    mask[np.repeat(np.arange(len(array)), lengths)[inside]] = True
    return mask


def _unproved_texts(array: Any) -> Mask | None:
    if not len(array):
        return None
    _, offsets_buffer, data_buffer = array.buffers()
    offsets = np.frombuffer(offsets_buffer, np.int32)[array.offset : array.offset + len(array) + 1]
    if data_buffer is None or offsets[-1] == offsets[0]:
        return None
    data = np.frombuffer(data_buffer, np.uint8)
    starts, ends = offsets[:-1], offsets[1:]
    first = data[np.minimum(starts, len(data) - 1)]
    rows = np.flatnonzero(_STARTS[first] & (ends > starts))
    if not len(rows):
        return None
    starts, ends, first = starts[rows], ends[rows], first[rows]
    lengths = ends - starts
    # A number ends in a digit and has nothing but digits, a point, an e and signs, a minus only at its start
    # or behind the e: look at a few places, then at the whole text of what is left. NaN and Infinity do not
    # come here, `scan` keeps them back.
    number = _IN_NUMBER[first] & _DIGIT[data[ends - 1]]
    left = np.flatnonzero(number)
    for tenths in _TENTHS:
        at = starts[left] + lengths[left] * tenths // 10
        sign = data[at]
        fits = _IN_NUMBER[sign]
        fits &= (sign != ord("-")) | (at == starts[left]) | ((data[at - 1] | 0x20) == ord("e"))
        left = left[fits]
    number[:] = False
    number[left] = True
    word = ((first == ord("t")) & (lengths == 4)) | ((first == ord("f")) & (lengths == 5))
    rows = rows[number | word | (first == ord("{")) | (first == ord("["))]
    texts = array.take(pa.array(rows)).to_pylist()
    doubtful = [at for at, text in zip(rows.tolist(), texts, strict=True) if _looks_unquoted(text)]
    if not doubtful:
        return None
    mask = np.zeros(len(array), np.bool_)
    mask[doubtful] = True
    return mask


def _looks_unquoted(text: str | None) -> bool:
    if not text:
        return False
    return text[0] in "[{" or text in ("true", "false") or not text.strip("0123456789+-.eE")
