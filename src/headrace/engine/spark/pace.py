"""How large the next micro-batch may be: told by the driver, read by the data source's own process.

Both run on the driver's machine, so a file is enough. Kafka says how many records there are, never how large
they are, and nobody knows before a run how fast this cluster is, or how many cores it has.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

__all__ = ["RANGE_ROWS_LEAST", "ROWS_AT_FIRST", "range_rows", "rows_allowed", "slow_down", "tell_pace"]

ROWS_AT_FIRST = 20_000
"""A first micro-batch, of records of unknown size, is small."""

RANGE_ROWS_LEAST = 10_000
"""To start a task takes as long as some thousand records do."""

_ROWS_LEAST = 1_000
_ROWS_MOST = 1 << 62
_SECONDS_MOST = 10.0
"""A micro-batch should not take longer: a stop waits for its end, and readers see nothing of it before."""


def rows_allowed(path: str, rows_max: int) -> int:
    """Return the most records of the next micro-batch."""
    return max(1, min(rows_max, _told(path)[0]))


def range_rows(path: str, rows: int, rows_max: int) -> int:
    """Return how many records of a micro-batch of `rows` one task reads, so that every core has some."""
    share = -(-rows // _told(path)[1])
    return max(1, min(rows_max, max(RANGE_ROWS_LEAST, share)))


def tell_pace(path: str, *, rows: int, size: int, seconds: float, bytes_max: int, cores: int) -> None:
    """Write down how many records the next one may have, after one of `rows` records and `size` bytes."""
    if not rows:
        return
    most = min(bytes_max * rows // max(size, 1), int(_SECONDS_MOST * rows / max(seconds, 0.001)))
    # One that was slow because it was small says nothing about a larger one.
    _write(path, max(_ROWS_LEAST, most, min(2 * rows, ROWS_AT_FIRST)), cores)


def slow_down(path: str) -> None:
    """Let the next micro-batch have half as many, after one that failed: it may have been too large."""
    _write(path, max(_ROWS_LEAST, rows_allowed(path, _ROWS_MOST) // 2), _told(path)[1])


def _told(path: str) -> tuple[int, int]:
    """Return the records and the cores that were told last."""
    with suppress(OSError, ValueError):
        rows, cores = Path(path).read_text(encoding="ascii").split()
        return int(rows), max(1, int(cores))
    return ROWS_AT_FIRST, 1


def _write(path: str, rows: int, cores: int) -> None:
    beside = Path(path).with_suffix(".new")
    beside.write_text(f"{rows} {cores}", encoding="ascii")
    beside.replace(path)
