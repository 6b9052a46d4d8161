"""Instants as microseconds since 1970-01-01 UTC.

And back: one way to count time inside the store and the engine.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import overload

__all__ = ["instant_of", "micros_of", "micros_of_length"]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def micros_of(instant: datetime) -> int:
    """Return the microseconds from 1970 to `instant`."""
    return (instant - _EPOCH) // _MICROSECOND


def micros_of_length(length: timedelta) -> int:
    """Return `length` in microseconds."""
    return length // _MICROSECOND


@overload
def instant_of(micros: int) -> datetime: ...
@overload
def instant_of(micros: None) -> None: ...
def instant_of(micros: int | None) -> datetime | None:
    """Return the instant that lies `micros` after 1970; None stays None."""
    return None if micros is None else _EPOCH + timedelta(microseconds=micros)
