"""A first look at the bytes of a slice: what is text that DuckDB may read, and what needs `strict`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

__all__ = ["Texts", "scan"]

Rows = npt.NDArray[np.int64]


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


def _scan_chunk(chunk: Any, suspect: npt.NDArray[np.bool_]) -> None:
    if chunk.null_count:
        suspect |= np.asarray(chunk.is_null())
    try:
        chunk.cast(pa.string())
    except pa.ArrowInvalid:
        for row, value in enumerate(chunk.to_pylist()):
            suspect[row] |= not _is_text(value)


def _is_text(value: bytes | None) -> bool:
    try:
        return value is not None and value.decode("utf-8") is not None
    except UnicodeDecodeError:
        return False
