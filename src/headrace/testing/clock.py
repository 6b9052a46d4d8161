"""Virtual time: a clock that moves when a test says so."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

__all__ = ["VirtualClock", "instant"]


def instant(value: datetime | str) -> datetime:
    """Return `value` as an instant in UTC; without a zone it is UTC, as everywhere in Headrace."""
    time = datetime.fromisoformat(value) if isinstance(value, str) else value
    return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)


class VirtualClock:
    """The clock that a test gives to its logs. It stands still between two calls of `move`."""

    def __init__(self, start: datetime | str) -> None:
        self.time = instant(start)

    def __call__(self) -> datetime:
        """What a log asks for as its clock."""
        return self.time

    def move(self, by: timedelta) -> None:
        """Set the clock forward, or back: a clock that steps back is a case worth testing."""
        self.time += by
