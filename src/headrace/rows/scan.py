"""A first look at the bytes of a slice: what is text that DuckDB may read, and what needs `strict`.

DuckDB's reader of JSON takes a comma before a closing bracket, NaN and Infinity, and any depth. These are
found here, and with them all that is no object, in many records at once: each test is a pass over a block
of whole records that fits the processor's cache. A test may name a record that is good after all, never pass
one that is not.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from headrace.log.arrays import Bytes, Mask, Offsets, Rows
from headrace.rows.strict import DEPTH_MAX

__all__ = ["Texts", "scan"]


_BLOCK = 1 << 18
_SPACES_MAX = 64
_OPENING, _CLOSING, _COMMA, _SPACE, _N, _A, _F = (np.uint8(ord(sign)) for sign in "{}, naf")
_LOWER = np.uint8(0x20)
_LITERAL_STARTS = np.zeros(256, np.bool_)
_LITERAL_STARTS[[*b":[,- \t\r\n"]] = True
_NONE: Rows = np.zeros(0, np.int64)


@dataclass(frozen=True)
class Texts:
    """documents: the texts of the records `rows`. suspects: the other rows, for `strict` to read."""

    documents: pa.ChunkedArray
    rows: Rows
    suspects: Rows


def scan(values: pa.ChunkedArray) -> Texts:
    """Split `values` (binary) into texts and suspects."""
    suspect = np.zeros(len(values), np.bool_)
    texts: list[pa.Array | None] = []
    start = 0
    for chunk in values.chunks:
        texts.append(_scan_chunk(chunk, suspect[start : start + len(chunk)]))
        start += len(chunk)
    if not suspect.any():
        return Texts(pa.chunked_array(texts, pa.string()), np.arange(len(values)), np.zeros(0, np.int64))
    kept = values.filter(pa.array(~suspect))
    return Texts(kept.cast(pa.string()), np.flatnonzero(~suspect), np.flatnonzero(suspect))


def _scan_chunk(chunk: Any, suspect: Mask) -> pa.Array | None:
    """Mark the suspects of one chunk; its texts, unless some value is none."""
    text = None
    if chunk.null_count:
        suspect |= np.asarray(chunk.is_null())
    try:
        text = chunk.cast(pa.string())
    except pa.ArrowInvalid:
        for row, value in enumerate(chunk.to_pylist()):
            suspect[row] |= not _is_text(value)
    _, offsets_buffer, data_buffer = chunk.buffers()
    offsets = np.frombuffer(offsets_buffer or b"", np.int32)[chunk.offset : chunk.offset + len(chunk) + 1]
    if data_buffer is None or not len(chunk) or not data_buffer.size:
        suspect[:] = True
        return text
    data = np.frombuffer(data_buffer, np.uint8)
    # Only an object starts with a brace. What has white space before it is looked at by `strict`.
    suspect |= (data.take(offsets[:-1], mode="clip") != _OPENING) | (offsets[1:] == offsets[:-1])
    first = 0
    while first < len(chunk):
        last = int(np.searchsorted(offsets, offsets[first] + _BLOCK, side="right")) - 1
        last = max(last, first + 1)
        ends = offsets[first + 1 : last + 1] - offsets[first]
        _mark_block(data[offsets[first] : offsets[last]], ends, suspect[first:last])
        first = last
    return text


def _is_text(value: bytes | None) -> bool:
    try:
        return value is not None and value.decode("utf-8") is not None
    except UnicodeDecodeError:
        return False


def _mark_block(block: Bytes, ends: Offsets, suspect: Mask) -> None:
    """Mark the suspects among the records of `block`, which end at `ends`."""
    lower = block | _LOWER  # letters in lower case, [ and ] as { and }
    closing = lower == _CLOSING
    if len(block) > _BLOCK and np.count_nonzero(closing) > DEPTH_MAX:
        # One long record: the places of its brackets may need eight times its bytes.
        suspect[:] = True
        return
    closers = np.flatnonzero(closing)
    # As many brackets are closed in a record as it opens, or it is no JSON at all. Where no bracket comes so
    # soon behind the one DEPTH_MAX before it, there is nothing to count.
    apart = closers[DEPTH_MAX:] - closers[:-DEPTH_MAX]
    if len(apart) and apart.min() < np.diff(ends, prepend=0).max():
        suspect |= np.diff(np.searchsorted(closers, ends), prepend=0) > DEPTH_MAX
    for places in (_after_comma(block, closers), _literals(block, lower)):
        if len(places):
            suspect[np.searchsorted(ends, places, side="right")] = True


def _after_comma(block: Bytes, closers: Rows) -> Rows:
    """The closing brackets that a comma stands before; white space between them is looked over."""
    doubtful: list[Rows] = []
    at = closers - 1
    for _ in range(_SPACES_MAX):
        # A bracket at the block's start looks at the block's end: it begins a record that is no object.
        before = block[at]
        found = before == _COMMA
        if found.any():
            doubtful.append(closers[found])
        space = np.flatnonzero(before <= _SPACE)
        if not len(space):
            return np.concatenate(doubtful) if doubtful else _NONE
        at, closers = at[space] - 1, closers[space]
        inside = at >= 0
        if not inside.all():
            at, closers = at[inside], closers[inside]
    # What has more white space before it than was looked over is in doubt.
    return np.concatenate([*doubtful, closers])


def _literals(block: Bytes, lower: Bytes) -> Rows:
    """Where NaN or Infinity may stand, in any spelling and outside a name or a string."""
    following = lower[1:]
    is_n = lower[:-1] == _N
    is_n &= (following == _A) | (following == _F)
    places = np.flatnonzero(is_n)
    if not len(places):
        return places
    infinite = lower[places + 1] == _F
    before = _LITERAL_STARTS[block[places - infinite - 1]]
    third = np.where(infinite, lower[places - 1] == ord("i"), lower.take(places + 2, mode="clip") == _N)
    literals: Rows = places[before & third]
    return literals
