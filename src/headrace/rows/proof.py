"""Looks at whole columns with NumPy, for what SQL would pay a multiple for.

Is what stands in a column what its record says? `json_transform` and casts are kinder than we are, so each
value is compared with the token that it was read from. The answer may name too many rows, never too few.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from headrace.declare import Column, DataType, ListType, MapType, ScalarType, StructType
from headrace.log.arrays import Bytes, Mask, Offsets, Rows
from headrace.rows.decode import INSTANT, INTEGERS, provable
from headrace.rows.instants import unproved, usual

__all__ = ["Proof"]


_SHORT = 2_000
_LONG_TEXT = 64
_FEW = 500


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


class Proof:
    """What is to be proved about the columns of one stream, for the tables of the doubting query."""

    def __init__(
        self, columns: tuple[Column, ...], event_time: str | None, free: tuple[int, ...] = ()
    ) -> None:
        """`free`: the numbers of the columns that `instants` reads, and proves as `_unproved_N`."""
        self._columns = columns
        self._free = free
        self._needed = [
            at for at, column in enumerate(columns) if not column.nullable or column.name == event_time
        ]
        self._texts = [at for at, column in enumerate(columns) if column.type.sql == "VARCHAR"]
        self._nested = [at for at, column in enumerate(columns) if not isinstance(column.type, ScalarType)]
        # Columns of one type are looked at together when they are short: each look has a fixed cost.
        self._alike: dict[str, list[int]] = {}
        for at, column in enumerate(columns):
            if isinstance(column.type, ScalarType) and provable(column.type) and at not in free:
                self._alike.setdefault(column.type.sql, []).append(at)
        for kind in ("VARCHAR", "JSON"):
            self._alike.pop(kind, None)

    def unproved(self, table: pa.Table) -> tuple[Mask, dict[int, Mask]]:
        """Return which rows are not proved to be what their record says, but for their strings.

        And, by the number of its column, which rows hold a VARCHAR, at any depth, that may have been
        something else in the JSON: a number, `true`, `false`, a list and an object keep their text when
        json_transform makes a VARCHAR of them, so only a text that looks like one of these is in doubt.

        A column of a type that is not `provable` is doubted by the query and not looked at here.
        """
        doubts = np.zeros(table.num_rows, np.bool_)
        texts: dict[int, Mask] = {}
        start = 0
        for batch in table.to_batches():
            part = doubts[start : start + batch.num_rows]
            for mask in self._doubted(batch):
                part |= mask
            for at, mask in self._doubted_texts(batch):
                whole = texts.setdefault(at, np.zeros(table.num_rows, np.bool_))
                whole[start : start + batch.num_rows] = mask
            start += batch.num_rows
        return doubts, texts

    def _doubted(self, batch: pa.RecordBatch) -> Iterator[Mask]:
        if "_suspect" in batch.schema.names and batch.column("_suspect").true_count:
            yield np.asarray(batch.column("_suspect"))
        for at in self._needed:
            if batch.column(at).null_count:
                yield np.asarray(batch.column(at).is_null())
        for at in self._free:
            if batch.column(f"_unproved_{at}").true_count:
                yield np.asarray(batch.column(f"_unproved_{at}"))
        for kind, numbers in self._alike.items():
            values = [batch.column(at) for at in numbers]
            tokens = [batch.column(f"_text_{at}") for at in numbers]
            yield from _looked_at(kind, values, tokens)
        for at in self._nested:
            nested = self._columns[at].type
            if provable(nested):
                names = (f"_text_{at}", f"_parts_{at}")
                mask = _nested(nested, batch.column(at), *(batch.column(name) for name in names))
                if mask is not None:
                    yield mask

    def _doubted_texts(self, batch: pa.RecordBatch) -> Iterator[tuple[int, Mask]]:
        columns = [batch.column(at) for at in self._texts]
        if len(columns) > 1 and batch.num_rows <= _SHORT:
            together = _unproved_texts(pa.concat_arrays(columns))
            if together is not None:
                for at, part in zip(self._texts, np.split(together, len(columns)), strict=True):
                    if part.any():
                        yield at, part
        else:
            for at, column in zip(self._texts, columns, strict=True):
                mask = _unproved_texts(column)
                if mask is not None:
                    yield at, mask
        for at in self._nested:
            mask = _strings(self._columns[at].type, batch.column(at))
            if mask is not None:
                yield at, mask


def _looked_at(kind: str, values: list[Any], texts: list[Any]) -> Iterator[Mask]:
    """The masks of columns of one scalar type: one by one, or together when they are short."""
    count, rows = len(values), len(values[0])
    if count > 1 and rows <= _SHORT:
        together = _scalars(kind, pa.concat_arrays(values), pa.concat_arrays(texts))
        if together is not None:
            yield np.logical_or.reduce(np.split(together, count))
        return
    for pair in zip(values, texts, strict=True):
        mask = _scalars(kind, *pair)
        if mask is not None:
            yield mask


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
    """Mark the instants that DuckDB's cast takes and we do not: zones by name, hour 24, years before 1."""
    micros = np.frombuffer(values.buffers()[1], np.int64)[values.offset : values.offset + len(values)]
    read, known = usual(texts)
    mask |= known & (micros != read)
    rest = np.flatnonzero(~known & np.asarray(texts.is_valid()))
    if len(rest):
        mask[rest] |= unproved(texts.take(pa.array(rest)), micros[rest])


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
    first = data.take(starts, mode="clip")
    rows = np.flatnonzero(_STARTS.take(first))
    rows = rows[ends[rows] > starts[rows]]
    if not len(rows):
        return None
    starts, ends, first = starts[rows], ends[rows], first[rows]
    lengths = ends - starts
    # A number ends in a digit and has nothing but digits, a point, an e and signs, a minus only at its start
    # or behind the e: look at a few places, then at the whole text of what is left. NaN and Infinity do not
    # come here, `scan` keeps them back.
    number = _IN_NUMBER[first] & _DIGIT[data[ends - 1]]
    left = np.flatnonzero(number)
    sample = left[:: max(len(left) // 50, 1)]
    # A column of digits is not looked at as a whole: to ask DuckDB for its type costs less.
    if len(left) <= _FEW or _like_numbers(data, starts[sample], lengths[sample]).mean() < 0.5:
        left = _left_over(data, starts, lengths, left)
    number[:] = False
    number[left] = True
    word = ((first == ord("t")) & (lengths == 4)) | ((first == ord("f")) & (lengths == 5))
    word &= _spells(data, starts, word, b"true") | _spells(data, starts, word, b"false")
    rows = rows[number | word | (first == ord("{")) | (first == ord("["))]
    if not len(rows):
        return None
    mask = np.zeros(len(array), np.bool_)
    mask[rows] = True
    return mask


def _left_over(data: Bytes, starts: Offsets, lengths: Offsets, rows: Rows) -> Rows:
    """Which of the texts `rows` are like numbers: a few places first, then the whole of what is left."""
    for tenths in _TENTHS if len(rows) > _FEW else ():
        at = starts[rows] + lengths[rows] * tenths // 10
        sign = data[at]
        fits = _IN_NUMBER[sign]
        fits &= (sign != ord("-")) | (at == starts[rows]) | ((data[at - 1] | 0x20) == ord("e"))
        rows = rows[fits]
    return rows[_like_numbers(data, starts[rows], lengths[rows])]


def _like_numbers(data: Bytes, starts: Offsets, lengths: Offsets) -> Mask:
    """Whether a text has only signs of a number, and a minus only where one has it; long texts may."""
    fits = np.ones(len(starts), np.bool_)
    short = np.flatnonzero(lengths <= _LONG_TEXT)
    if len(short):
        counts = lengths[short].astype(np.int64)
        firsts = counts.cumsum() - counts
        places = np.arange(counts.sum()) + np.repeat(starts[short] - firsts, counts)
        good = _IN_NUMBER[data[places]]
        minus = np.flatnonzero(data[places] == ord("-"))
        behind_e = (data[places[minus] - 1] | 0x20) == ord("e")
        starts_text = np.zeros(len(places), np.bool_)
        starts_text[firsts] = True
        good[minus] &= behind_e | starts_text[minus]
        fits[short] = np.logical_and.reduceat(good, firsts)
    return fits


def _spells(data: Bytes, starts: Offsets, among: Mask, word: bytes) -> Mask:
    """Which of the texts `among`, none of which is shorter than `word` or ends before it, begin with it."""
    spelled = among.copy()
    for at, sign in enumerate(word):
        spelled[spelled] = data.take(starts[spelled] + at, mode="clip") == sign
    return spelled
