"""Two looks at whole batches of bytes with NumPy, for what SQL would pay a multiple for.

Both answer "which records need a second look", and may name too many, never too few.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from headrace.rows.decode import TIMESTAMP_SHAPE

__all__ = ["unproved_instants", "unproved_strings"]

Mask = npt.NDArray[np.bool_]
Bytes = npt.NDArray[np.uint8]

_FIRST = -62_135_596_800_000_000  # 0001-01-01T00:00:00Z
_LAST = 253_402_300_799_999_999  # 9999-12-31T23:59:59.999999Z
_USUAL_LENGTHS = (20, 24, 27)

# What a value that was no string can begin with once json_transform has made a VARCHAR of it.
_STARTS = np.zeros(256, np.bool_)
_STARTS[[*b"0123456789-{[tf"]] = True
_IN_NUMBER = np.zeros(256, np.bool_)
_IN_NUMBER[[*b"0123456789+-.eE"]] = True
_DIGIT = np.zeros(256, np.bool_)
_DIGIT[[*b"0123456789"]] = True
_PLACES = (0.5, 0.3, 0.7, 0.2, 0.4, 0.6, 0.8, 0.9)


def unproved_strings(column: pa.ChunkedArray) -> Mask | None:
    """Return which rows hold a VARCHAR, at any depth, that may have been something else in the JSON.

    None: no row does. A number, `true`, `false`, a list and an object keep their text when json_transform
    makes a VARCHAR of them, so only a text that looks like one of these is in doubt.
    """
    masks = [_unproved(chunk) for chunk in column.chunks]
    if all(mask is None for mask in masks):
        return None
    parts = [
        np.zeros(len(chunk), np.bool_) if mask is None else mask
        for chunk, mask in zip(column.chunks, masks, strict=True)
    ]
    return np.concatenate(parts)


def unproved_instants(column: pa.ChunkedArray, texts: pa.ChunkedArray) -> Mask | None:
    """Return which rows of a TIMESTAMP column may say something else than their texts; None: no row does.

    DuckDB's cast takes more texts than we do: zones by name, spaces, `infinity`, years before 1.
    """
    mask = np.zeros(len(column), np.bool_)
    if column.null_count != texts.null_count:
        mask |= np.asarray(pc.xor(column.is_null(), texts.is_null()))
    bounds = pc.min_max(column.cast(pa.int64())).as_py()
    if bounds["min"] is not None and (bounds["min"] < _FIRST or bounds["max"] > _LAST):
        micros = np.asarray(column.cast(pa.int64()).fill_null(0))
        mask |= (micros < _FIRST) | (micros > _LAST)
    start = 0
    for chunk in texts.chunks:
        _mark_unusual(chunk, mask[start : start + len(chunk)])
        start += len(chunk)
    return mask if mask.any() else None


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


def _unproved(array: pa.Array) -> Mask | None:
    kind = array.type
    if pa.types.is_string(kind):
        return _unproved_texts(array)
    if pa.types.is_list(kind):
        return _rows_of(array, _unproved(array.flatten()))
    if pa.types.is_map(kind):
        # `items` leaves out nothing for NULL maps in these arrays: they have no entries.
        return _rows_of(array, _unproved(array.items)) if not array.offset else _unproved(_compact(array))
    if pa.types.is_struct(kind):
        return _either([_unproved(part) for part in array.flatten()])
    return None


def _compact(array: pa.Array) -> pa.Array:
    return pa.concat_arrays([array, array.slice(0, 0)]).take(pa.array(np.arange(len(array))))


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
    # A number ends in a digit and has nothing but digits, signs, a point and an e: look at a few places, then
    # at the whole text of what is left. NaN and Infinity do not come here, `scan` keeps them back.
    number = _IN_NUMBER[first] & _DIGIT[data[ends - 1]]
    rows_of_number = np.flatnonzero(number)
    for part in _PLACES:
        at = starts[rows_of_number] + (lengths[rows_of_number] * part).astype(np.int32)
        rows_of_number = rows_of_number[_IN_NUMBER[data[at]]]
    number[:] = False
    number[rows_of_number] = True
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
