"""Instants by NumPy: it reads the usual spellings ten times faster than a cast in SQL, and proves them.

An instant that no other expression of the row query needs comes out of that query as its text. Digits at
their places and a day that exists make an instant; what is spelled otherwise is cast by DuckDB, and in doubt
unless `TIMESTAMP_SHAPE` allows the spelling. So a value does not depend on its company.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from headrace.rows.decode import TIMESTAMP_SHAPE

__all__ = ["instants", "unproved", "usual"]

# A day behind the first: what is before it may have been written with a year 0 and a zone.
_FIRST = -62_135_510_400_000_000  # 0001-01-02T00:00:00Z
_LAST = 253_402_300_799_999_999  # 9999-12-31T23:59:59.999999Z

Mask = npt.NDArray[np.bool_]
Bytes = npt.NDArray[np.uint8]
Rows = npt.NDArray[np.int64]
Micros = npt.NDArray[np.int64]

_TYPE = pa.timestamp("us", "UTC")
_SECONDS = "0000-00-00T00:00:00"
_PLACES = len(_SECONDS)
_YEARS = np.arange(10_000)
_LEAP = (_YEARS % 4 == 0) & (_YEARS % 100 != 0) | (_YEARS % 400 == 0)
# Days from 1970-01-01 to the first day of each year; there is no year 0.
_YEAR_BEGINS = np.concatenate([[0], (365 + _LEAP).cumsum()[:-1]]) - 719_528
_LENGTHS = np.array([0, 31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31, *[0] * 87], np.uint8)
_MONTH_BEGINS = np.concatenate([[0], _LENGTHS[:99].cumsum()]).astype(np.int64)


@dataclass(frozen=True)
class _Spelling:
    """A spelling of a fixed length: `low` is the lowest sign at each place, `span` how far the highest is."""

    low: Bytes
    span: Bytes
    decimals: int

    @staticmethod
    def of(decimals: int, zone: str) -> _Spelling:
        text = _SECONDS + ("." + "0" * decimals if decimals else "") + zone.replace("0", "\0")
        low = np.frombuffer(text.encode(), np.uint8)
        span = np.where(low == ord("0"), 9, 0).astype(np.uint8)
        return _Spelling(np.where(low == 0, ord("0"), low).astype(np.uint8), span, decimals)


_SPELLINGS: dict[int, list[_Spelling]] = {}
for _zone in ("Z", "+00:00", ""):
    for _decimals in range(7):
        _spelling = _Spelling.of(_decimals, _zone)
        _SPELLINGS.setdefault(len(_spelling.low), []).append(_spelling)


def instants(texts: pa.ChunkedArray, cast: Callable[[Any], Any]) -> tuple[pa.ChunkedArray, pa.ChunkedArray]:
    """Give `texts` as instants, NULL for what is none; and which of them are not proved to be what they say.

    `cast` gives any array of strings as instants, as DuckDB reads them.
    """
    values, doubts = [], []
    for chunk in texts.chunks:
        micros, known = usual(chunk)
        doubtful = np.zeros(len(chunk), np.bool_)
        rest = np.flatnonzero(~known & np.asarray(chunk.is_valid()))
        if len(rest):
            others = chunk.take(pa.array(rest))
            found = cast(others)
            micros[rest] = np.asarray(found.cast(_TYPE).view(pa.int64()).fill_null(0))
            known[rest] = np.asarray(found.is_valid())
            doubtful[rest] = unproved(others, micros[rest]) | ~known[rest]
        bits = None if known.all() else pa.py_buffer(np.packbits(known, bitorder="little"))
        values.append(pa.Array.from_buffers(_TYPE, len(chunk), [bits, pa.py_buffer(micros)]))
        doubts.append(pa.array(doubtful))
    return pa.chunked_array(values, _TYPE), pa.chunked_array(doubts, pa.bool_())


def unproved(texts: Any, micros: Micros) -> Mask:
    """Which of the instants that DuckDB made of `texts` may be others than we read."""
    fits = pc.match_substring_regex(texts, f"^({TIMESTAMP_SHAPE})$")
    return ~np.asarray(fits) | (micros < _FIRST) | (micros > _LAST)


def usual(texts: Any) -> tuple[Micros, Mask]:
    """The instants among `texts` that are spelled as usual, in microseconds, and which these are."""
    micros = np.zeros(len(texts), np.int64)
    known = np.zeros(len(texts), np.bool_)
    _, offsets_buffer, data_buffer = texts.buffers()
    if data_buffer is None or not len(texts):
        return micros, known
    offsets = np.frombuffer(offsets_buffer, np.int32)[texts.offset : texts.offset + len(texts) + 1]
    data = np.frombuffer(data_buffer, np.uint8)
    starts, lengths = offsets[:-1], np.diff(offsets)
    for length, spellings in _SPELLINGS.items():
        rows = np.flatnonzero(lengths == length)
        if not len(rows):
            continue
        if len(rows) == len(texts):
            table = data[offsets[0] : offsets[-1]].reshape(-1, length)
        else:
            table = np.lib.stride_tricks.sliding_window_view(data, length)[starts[rows]]
        signs = np.ascontiguousarray(table.T)
        for spelling in spellings:
            digits = signs - spelling.low[:, None]
            fits = digits <= spelling.span[:, None]
            alike = fits.all(axis=0)
            if alike.any():
                found, exist = _read(digits, spelling.decimals)
                alike &= exist
                micros[rows[alike]] = found[alike]
                known[rows[alike]] = True
    return micros, known


def _read(digits: Bytes, decimals: int) -> tuple[Micros, Mask]:
    """The instants that `digits` (a row per place) say, and which of them exist."""
    month, day, hour, minute, second = (digits[at] * 10 + digits[at + 1] for at in (5, 8, 11, 14, 17))
    year = (digits[0] * 10 + digits[1]).astype(np.int16) * 100 + (digits[2] * 10 + digits[3])
    np.clip(year, 0, 9_999, out=year)
    np.minimum(month, 99, out=month)
    leap = _LEAP[year]
    exist: Mask = (year > 0) & (hour < 24) & (minute < 60) & (second < 60) & (day > 0)
    exist &= day <= _LENGTHS[month] + (leap & (month == 2))
    days = _YEAR_BEGINS[year] + _MONTH_BEGINS[month] + (leap & (month > 2)) + day - 1
    seconds = ((days * 24 + hour) * 60 + minute) * 60 + second
    micros = seconds * 1_000_000
    scale = 1_000_000
    for at in range(decimals):
        scale //= 10
        micros += digits[_PLACES + 1 + at].astype(np.int64) * scale
    return micros, exist
