"""A first look at the bytes of a slice: what is text that DuckDB may read, and what needs `strict`.

DuckDB's reader of JSON takes a comma before a closing bracket, NaN and Infinity, and any depth. These are found
here, in all records at once: each test is a pass over a block that fits the processor's cache. A test may name a
record that is good after all, never pass one that is not.
"""

from __future__ import annotations

from collections.abc import Iterator
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

_BLOCK = 1 << 17
_CELL = 512
_SPACE_MAX = 32
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
    start = 0
    for chunk in values.chunks:
        _scan_chunk(chunk, suspect[start : start + len(chunk)])
        start += len(chunk)
    if not suspect.any():
        return Texts(values.cast(pa.string()), np.arange(len(values)), np.zeros(0, np.int64))
    kept = values.filter(pa.array(~suspect))
    return Texts(kept.cast(pa.string()), np.flatnonzero(~suspect), np.flatnonzero(suspect))


def _scan_chunk(chunk: Any, suspect: Mask) -> None:
    if not len(chunk):
        return
    if chunk.null_count:
        suspect |= np.asarray(chunk.is_null())
    try:
        chunk.cast(pa.string())
    except pa.ArrowInvalid:
        for row, value in enumerate(chunk.to_pylist()):
            suspect[row] |= not _is_text(value)
    _, offsets_buffer, data_buffer = chunk.buffers()
    offsets = np.frombuffer(offsets_buffer, np.int32)[chunk.offset : chunk.offset + len(chunk) + 1]
    if data_buffer is None or offsets[-1] == offsets[0]:
        return
    data = np.frombuffer(data_buffer, np.uint8)[offsets[0] : offsets[-1]]
    places, opened = _places(data)
    ends = offsets[1:] - offsets[0]
    if len(places):
        suspect[np.searchsorted(ends, places, side="right")] = True
    suspect |= _maybe_deep(opened, offsets[:-1] - offsets[0], ends)


def _is_text(value: bytes | None) -> bool:
    try:
        return value is not None and value.decode("utf-8") is not None
    except UnicodeDecodeError:
        return False


def _places(data: Bytes) -> tuple[Rows, Rows]:
    """Where something that is no JSON may stand, and how many brackets are opened before each cell."""
    found: list[Rows] = []
    cells: list[Rows] = []
    for start in range(0, len(data), _BLOCK):
        # Two bytes on either side, because what is looked for may cross the edge.
        block = data[max(start - 2, 0) : start + _BLOCK + 2]
        lower = block | np.uint8(0x20)  # letters in lower case, [ and ] as { and }
        first = start - max(start - 2, 0)
        opening = (lower == ord("{"))[first : first + _BLOCK]
        if len(opening) % _CELL:
            opening = np.concatenate([opening, np.zeros(-len(opening) % _CELL, np.bool_)])
        cells.append(
            opening.view(np.uint64)
            .reshape(-1, _CELL // 8)
            .sum(axis=1)
            .view(np.uint8)
            .reshape(-1, 8)
            .sum(axis=1, dtype=np.int64)
        )
        found += [places + (start - first) for places in _in_block(block, lower)]
    opened = np.concatenate([np.zeros(1, np.int64), *cells]).cumsum()
    return np.concatenate([np.zeros(0, np.int64), *found]), opened


def _in_block(block: Bytes, lower: Bytes) -> Iterator[Rows]:
    closing = lower[1:] == ord("}")
    yield np.flatnonzero((block[:-1] == ord(",")) & closing)
    spaced = np.flatnonzero((block[:-1] <= ord(" ")) & closing)
    if len(spaced):
        yield _after_comma(block, spaced)
    is_n = lower[:-1] == ord("n")
    named = np.flatnonzero(is_n & (lower[1:] == ord("a")))
    named = named[(named > 0) & (named + 2 < len(block))]
    yield named[_LITERAL_STARTS[block[named - 1]] & (lower[named + 2] == ord("n"))]
    endless = np.flatnonzero(is_n & (lower[1:] == ord("f")))
    endless = endless[endless > 1]
    yield endless[_LITERAL_STARTS[block[endless - 2]] & (lower[endless - 1] == ord("i"))]


def _after_comma(block: Bytes, places: Rows) -> Rows:
    """Of the white space at `places`, what a comma stands before; also what is too long to look behind."""
    doubtful: list[Rows] = []
    at = places
    for _ in range(_SPACE_MAX):
        space = block[at] <= ord(" ")
        doubtful.append(places[~space & (block[at] == ord(","))])
        edge = space & (at == 0)
        doubtful.append(places[edge])
        at, places = at[space & ~edge] - 1, places[space & ~edge]
        if not len(at):
            break
    return np.concatenate([*doubtful, places])


def _maybe_deep(opened: Rows, starts: Rows, ends: Rows) -> Mask:
    """Which records stand in cells that open more brackets than one record may nest."""
    deep: Mask = opened[-(-ends // _CELL)] - opened[starts // _CELL] > DEPTH_MAX
    return deep
