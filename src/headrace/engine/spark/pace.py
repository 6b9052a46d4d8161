"""How many records the next micro-batch may have: told by the driver, read by the data source's own process.

Both run on the driver's machine, so a file is enough. Kafka says how many records there are, never how large
they are, and nobody knows before a run how fast this cluster is.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

__all__ = ["ROWS_AT_FIRST", "rows_allowed", "slow_down", "tell_pace"]

ROWS_AT_FIRST = 20_000
"""A first micro-batch, of records of unknown size, is small."""

_ROWS_LEAST = 1_000
_ROWS_MOST = 1 << 62
_SECONDS_MOST = 10.0
"""A micro-batch should not take longer: a stop waits for its end, and readers see nothing of it before."""


def rows_allowed(path: str, rows_max: int) -> int:
    """Return the most records of the next micro-batch."""
    told = ROWS_AT_FIRST
    with suppress(OSError, ValueError):
        told = int(Path(path).read_text(encoding="ascii"))
    return max(1, min(rows_max, told))


def tell_pace(path: str, *, rows: int, size: int, seconds: float, bytes_max: int) -> None:
    """Write down how many records the next one may have, after one of `rows` records and `size` bytes."""
    if not rows:
        return
    most = min(bytes_max * rows // max(size, 1), int(_SECONDS_MOST * rows / max(seconds, 0.001)))
    # One that was slow because it was small says nothing about a larger one.
    _write(path, max(_ROWS_LEAST, most, min(2 * rows, ROWS_AT_FIRST)))


def slow_down(path: str) -> None:
    """Let the next micro-batch have half as many, after one that failed: it may have been too large."""
    _write(path, max(_ROWS_LEAST, rows_allowed(path, _ROWS_MOST) // 2))


def _write(path: str, rows: int) -> None:
    beside = Path(path).with_suffix(".new")
    beside.write_text(str(rows), encoding="ascii")
    beside.replace(path)
