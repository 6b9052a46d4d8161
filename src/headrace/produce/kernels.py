"""Text from numbers without a loop over records: the pieces that generators build their JSON from.

A *row matrix* is a uint8 array of shape (records, width): every text of it has the same width, so a field is
a slice of columns. `binary_of` turns one into an Arrow array without copying it.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

__all__ = [
    "Bytes",
    "binary_of",
    "constant_rows",
    "decimal_digits",
    "digit_rows",
    "join",
    "power_law",
    "repeat_earlier",
    "string_table",
    "write_hex",
    "write_millis",
    "write_uuid",
]

Bytes: TypeAlias = npt.NDArray[np.uint8]
_MILLIS_OF_DAY = 86_400_000
_HEX = np.frombuffer("".join(f"{byte:02x}" for byte in range(256)).encode(), np.uint16)
_UUID_GROUPS = (
    (0, 8, 0),
    (8, 12, 9),
    (12, 16, 14),
    (16, 20, 19),
    (20, 32, 24),
)  # from, to, place in the text


def binary_of(rows: Bytes) -> pa.Array:
    """Return `rows` as a binary array; it keeps the matrix alive instead of copying it."""
    count, width = rows.shape
    offsets = np.arange(count + 1, dtype=np.int32) * np.int32(width)
    buffers = [None, pa.py_buffer(offsets), pa.py_buffer(np.ascontiguousarray(rows))]
    return pa.Array.from_buffers(pa.binary(), count, buffers)


def constant_rows(count: int, text: str) -> Bytes:
    """Return `count` rows that all hold `text`; places of it are then written over."""
    return np.tile(np.frombuffer(text.encode(), np.uint8), (count, 1))


def digit_rows(numbers: npt.NDArray[np.int64], width: int) -> Bytes:
    """Return the decimal digits of `numbers` (not negative), padded with zeros to `width`."""
    powers = 10 ** np.arange(width - 1, -1, -1, dtype=np.int64)
    return ((numbers[:, None] // powers) % 10 + ord("0")).astype(np.uint8)


def decimal_digits(numbers: npt.NDArray[Any]) -> pa.Array:
    """Return the decimal digits of `numbers` (cut to whole ones) without zeros before them, as binary."""
    return pa.array(numbers.astype(np.int64)).cast(pa.string()).cast(pa.binary())


def write_hex(rows: Bytes, at: int, bits: npt.NDArray[np.uint32]) -> None:
    """Write eight hexadecimal digits per record from column `at` on."""
    rows[:, at : at + 8] = _HEX[bits.view(np.uint8).reshape(-1, 4)].view(np.uint8)


def write_uuid(rows: Bytes, at: int, bits: npt.NDArray[np.uint64]) -> None:
    """Write a version 4 UUID (RFC 9562) per record from column `at` on; `bits` has two numbers per record."""
    octets = bits.view(np.uint8).reshape(-1, 16).copy()
    octets[:, 6] = (octets[:, 6] & 0x0F) | 0x40
    octets[:, 8] = (octets[:, 8] & 0x3F) | 0x80
    text = _HEX[octets].view(np.uint8)
    for start, end, place in _UUID_GROUPS:
        rows[:, at + place : at + place + end - start] = text[:, start:end]
        if place:
            rows[:, at + place - 1] = ord("-")


def write_millis(rows: Bytes, at: int, millis: npt.NDArray[np.int64]) -> None:
    """Write `2026-01-31T23:59:59.999` (23 characters, UTC) per record from column `at` on.

    `millis` counts from 1970; the years 0 to 9999 fit.
    """
    days, rest = np.divmod(millis, _MILLIS_OF_DAY)
    seconds, fraction = np.divmod(rest, 1000)
    first, last = (int(days.min()), int(days.max())) if len(days) else (0, 0)
    dates = np.datetime_as_string(np.arange(first, last + 1).astype("datetime64[D]")).astype("S10")
    rows[:, at : at + 10] = dates.view(np.uint8).reshape(-1, 10)[days - first]
    rows[:, at + 10] = ord("T")
    rows[:, at + 11 : at + 19] = _clock_rows()[seconds]
    rows[:, at + 19] = ord(".")
    rows[:, at + 20 : at + 23] = _fraction_rows()[fraction]


@cache
def _clock_rows() -> Bytes:
    seconds = np.arange(86_400, dtype=np.int64)
    rows = constant_rows(86_400, "00:00:00")
    for at, part in ((0, seconds // 3600), (3, seconds // 60 % 60), (6, seconds % 60)):
        rows[:, at : at + 2] = digit_rows(part, 2)
    return rows


@cache
def _fraction_rows() -> Bytes:
    return digit_rows(np.arange(1000, dtype=np.int64), 3)


def string_table(texts: Sequence[str]) -> pa.Array:
    """Return `texts` as a binary array to `take` from."""
    return pa.array([text.encode() for text in texts], pa.binary())


def join(*pieces: Any, separator: str = "", skip_nulls: bool = False) -> pa.Array:
    """Join arrays and constants (bytes) record by record."""
    parts = [pa.scalar(piece, pa.binary()) if isinstance(piece, bytes) else piece for piece in pieces]
    handling = "skip" if skip_nulls else "emit_null"
    last = pa.scalar(separator.encode(), pa.binary())
    return pc.binary_join_element_wise(*parts, last, null_handling=handling)


def power_law(size: int, exponent: float) -> npt.NDArray[np.float64]:
    """Return the cumulated shares of `size` things, the n-th as popular as 1/n**exponent (Zipf's law).

    `np.searchsorted(shares, uniform)` draws from it. An exponent of 0 makes all equally popular.
    """
    weights = np.arange(1, size + 1, dtype=np.float64) ** -exponent
    shares = np.cumsum(weights)
    cumulated: npt.NDArray[np.float64] = shares / shares[-1]
    cumulated[-1] = 1.0
    return cumulated


def repeat_earlier(
    recent: pa.Table, made: pa.Table, back: npt.NDArray[np.int32]
) -> tuple[pa.Table, npt.NDArray[np.bool_]]:
    """Return `made` with some rows replaced by earlier ones, and which were; a copied copy is the original.

    `back` says how many rows before its own place the original of a row stands, 0: it is no copy. Places
    before `made` lie in `recent`, which has the same columns; a row whose original lies before that stays.
    """
    before = len(recent)
    source = np.arange(len(back)) + before
    copied = (back != 0) & (source - back >= 0)
    if not copied.any():
        return made, copied
    origin = np.concatenate([np.arange(before), np.where(copied, source - back, source)])
    while True:  # each round halves the way to the original
        further = origin[origin]
        if (further == origin).all():
            break
        origin = further
    everything = pa.concat_tables([recent, made]).combine_chunks()
    return everything.take(pa.array(origin[before:])), copied
