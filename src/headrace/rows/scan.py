"""A first look at the bytes of a slice: what is text that DuckDB may read, and what needs `strict`.

DuckDB's reader of JSON takes a comma before a closing bracket, NaN and Infinity, and any depth. These are
found here, in all records at once: each test is a pass over a block that fits the processor's cache. A test
may name a record that is good after all, never pass one that is not.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from headrace.rows.strict import DEPTH_MAX

__all__ = ["Texts", "scan"]

Rows = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]
Bytes = npt.NDArray[np.uint8]

_BLOCK = 1 << 18
_CELL = 512
_MARGIN = 64
_LITERAL_STARTS = np.zeros(256, np.bool_)
_LITERAL_STARTS[[*b":[,- \t\r\n"]] = True


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
    if data_buffer is None or not len(chunk) or offsets[-1] == offsets[0]:
        return text
    data = np.frombuffer(data_buffer, np.uint8)[offsets[0] : offsets[-1]]
    places, closed = _places(data)
    ends = offsets[1:] - offsets[0]
    suspect[np.searchsorted(ends, places, side="right")] = True
    # As many brackets are closed in a record as it opens, or it is no JSON at all.
    suspect |= closed[-(-ends // _CELL)] - closed[(offsets[:-1] - offsets[0]) // _CELL] > DEPTH_MAX
    return text


def _is_text(value: bytes | None) -> bool:
    try:
        return value is not None and value.decode("utf-8") is not None
    except UnicodeDecodeError:
        return False


def _places(data: Bytes) -> tuple[Rows, Rows]:
    """Where something that is no JSON may stand, and how many brackets are closed before each cell."""
    found: list[Rows] = []
    cells: list[Rows] = [np.zeros(1, np.int64)]
    for start in range(0, len(data), _BLOCK):
        # Some bytes on either side, because what is looked for may cross the edge.
        base = max(start - _MARGIN, 0)
        block = data[base : start + _BLOCK + _MARGIN]
        lower = block | np.uint8(0x20)  # letters in lower case, [ and ] as { and }
        closing = lower == ord("}")
        cells.append(_count_by_cell(closing[start - base : start - base + _BLOCK]))
        closers = np.flatnonzero(closing)
        found.append(_after_comma(block, closers) + base)
        found.append(_literals(block, lower) + base)
    return np.concatenate(found), np.concatenate(cells).cumsum()


def _count_by_cell(flags: Mask) -> Rows:
    if len(flags) % _CELL:
        flags = np.concatenate([flags, np.zeros(-len(flags) % _CELL, np.bool_)])
    # Eight flags at a time: no byte of a sum can overflow, because a cell has 64 words.
    lanes = flags.view(np.uint64).reshape(-1, _CELL // 8).sum(axis=1)
    counts: Rows = lanes.view(np.uint8).reshape(-1, 8).sum(axis=1, dtype=np.int64)
    return counts


def _after_comma(block: Bytes, closers: Rows) -> Rows:
    """The closing brackets that a comma stands before; white space between them is looked over."""
    doubtful: list[Rows] = []
    at = closers - 1
    for _ in range(_MARGIN):
        inside = at >= 0
        at, closers = at[inside], closers[inside]
        before = block[at]
        doubtful.append(closers[before == ord(",")])
        space = before <= ord(" ")
        at, closers = at[space] - 1, closers[space]
        if not len(at):
            break
    # What has more white space before it than was looked over is in doubt.
    return np.concatenate([*doubtful, closers])


def _literals(block: Bytes, lower: Bytes) -> Rows:
    """Where NaN or Infinity may stand, in any spelling and outside a name or a string."""
    is_n = lower[2:-1] == ord("n")
    following = lower[3:]
    places = np.flatnonzero(is_n & ((following == ord("a")) | (following == ord("f")))) + 2
    if not len(places):
        return places
    infinite = lower[places + 1] == ord("f")
    starts = places - infinite
    before = _LITERAL_STARTS[block[starts - 1]]
    third = lower[np.minimum(places + 2, len(lower) - 1)] == ord("n")
    whole = np.where(infinite, lower[places - 1] == ord("i"), third)
    literals: Rows = places[before & whole]
    return literals
