"""Durations as people write them: `"5 minutes"`, `"90 s"`, `"1 day"`.

No months and no years: they have no fixed length, so no window and no lateness can be measured in them.
"""

from __future__ import annotations

import re
from datetime import timedelta

__all__ = ["format_duration", "parse_duration"]

_SECONDS_OF_UNIT = {
    "us": 1e-6,
    "microsecond": 1e-6,
    "ms": 1e-3,
    "millisecond": 1e-3,
    "s": 1,
    "sec": 1,
    "second": 1,
    "m": 60,
    "min": 60,
    "minute": 60,
    "h": 3600,
    "hr": 3600,
    "hour": 3600,
    "d": 86400,
    "day": 86400,
    "w": 604800,
    "week": 604800,
}
_PART = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([a-zA-Z]+)\s*")


def parse_duration(text: str | timedelta) -> timedelta:
    """Return the length of `text`; several parts add up (`"1 hour 30 minutes"`).

    Raises ValueError with the reason and what to write instead.
    """
    if isinstance(text, timedelta):
        return text
    total, at = timedelta(), 0
    while at < len(text):
        part = _PART.match(text, at)
        if part is None:
            raise ValueError(f"'{text}' is not a duration; write for example '5 minutes' or '90 s'")
        number, unit = part.groups()
        word = unit.lower()
        seconds = _SECONDS_OF_UNIT.get(word) or _SECONDS_OF_UNIT.get(word.removesuffix("s"))
        if seconds is None:
            hint = (
                "it has no fixed length; write days" if word.startswith(("month", "year")) else "unknown unit"
            )
            raise ValueError(f"'{text}': '{unit}': {hint} (us, ms, s, minutes, hours, days, weeks)")
        try:
            total += timedelta(microseconds=round(float(number) * seconds * 1_000_000))
        except OverflowError:
            raise ValueError(f"'{text[:40]}' is too long") from None
        at = part.end()
    if at == 0:
        raise ValueError("an empty duration; write for example '5 minutes'")
    return total


def format_duration(length: timedelta) -> str:
    """Return `length` in the largest units that keep it exact: `'1 hour 30 minutes'`, `'0 seconds'`."""
    rest = length // timedelta(microseconds=1)
    parts = []
    for name, size in (("day", 86_400_000_000), ("hour", 3_600_000_000), ("minute", 60_000_000),
                       ("second", 1_000_000), ("ms", 1_000), ("us", 1)):  # fmt: skip
        count, rest = divmod(rest, size)
        if count:
            parts.append(f"{count} {name}" + ("s" if count != 1 and len(name) > 2 else ""))
    return " ".join(parts) or "0 seconds"
