"""How the oracle reads one record's bytes: its own strict JSON reader and its own types.

Nothing here may look at `headrace`: a mistake in the engine must not be repeated here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import ROUND_HALF_UP, Decimal, localcontext
from typing import Any

_INTEGER = re.compile(r"-?(0|[1-9]\d*)\Z")
_INSTANT = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)[T ](\d\d):(\d\d)(?::(\d\d)(?:\.(\d{1,6}))?)?\s*(Z|[+-]\d\d(?::?\d\d)?)?\Z"
)


class WrongValueError(Exception):
    """A JSON value that does not have the declared type, or does not fit it."""


@dataclass(frozen=True)
class NumberToken:
    """A JSON number as it was written."""

    text: str


Reader = Callable[[Any], Any]


def text(value: Any) -> str:
    if not isinstance(value, str):
        raise WrongValueError("not a text")
    return value


def boolean(value: Any) -> bool:
    if not isinstance(value, bool):
        raise WrongValueError("not a boolean")
    return value


def _whole(bits: int) -> Reader:
    def read(value: Any) -> int:
        if not isinstance(value, NumberToken) or not _INTEGER.match(value.text):
            raise WrongValueError("not a whole number")
        number = int(value.text)
        if not -(2 ** (bits - 1)) <= number < 2 ** (bits - 1):
            raise WrongValueError("out of range")
        return number

    return read


integer = _whole(32)
bigint = _whole(64)


def double(value: Any) -> float:
    if not isinstance(value, NumberToken):
        raise WrongValueError("not a number")
    number = float(value.text)
    if number in (float("inf"), float("-inf")):
        raise WrongValueError("out of range")
    return number


def decimal(precision: int, scale: int) -> Reader:
    def read(value: Any) -> Decimal:
        if not isinstance(value, NumberToken):
            raise WrongValueError("not a number")
        with localcontext(prec=400):
            number = Decimal(value.text).quantize(Decimal(1).scaleb(-scale), rounding=ROUND_HALF_UP)
        if abs(number) >= Decimal(10) ** (precision - scale):
            raise WrongValueError("out of range")
        return number

    return read


def instant(value: Any) -> datetime:
    """A text without a zone is UTC."""
    found = _INSTANT.match(value) if isinstance(value, str) else None
    if found is None:
        raise WrongValueError("not a time")
    year, month, day, hour, minute, second, fraction, zone = found.groups()
    try:
        local = datetime(
            int(year), int(month), int(day), int(hour), int(minute), int(second or 0),
            int((fraction or "").ljust(6, "0")), tzinfo=_zone(zone),
        )  # fmt: skip
    except ValueError as reason:
        raise WrongValueError(str(reason)) from reason
    return local.astimezone(UTC)


def _zone(word: str | None) -> timezone:
    if word in (None, "Z"):
        return UTC
    digits = word[1:].replace(":", "").ljust(4, "0")
    shift = timedelta(hours=int(digits[:2]), minutes=int(digits[2:]))
    return timezone(shift if word[0] == "+" else -shift)


def day(value: Any) -> date:
    if not isinstance(value, str) or not re.match(r"\d{4}-\d\d-\d\d\Z", value):
        raise WrongValueError("not a date")
    try:
        return date.fromisoformat(value)
    except ValueError as reason:
        raise WrongValueError(str(reason)) from reason


def list_of(item: Reader) -> Reader:
    def read(value: Any) -> list[Any]:
        if not isinstance(value, list):
            raise WrongValueError("not a list")
        return [None if part is None else item(part) for part in value]

    return read


def struct(**fields: Reader) -> Reader:
    def read(value: Any) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise WrongValueError("not an object")
        return {
            name: None if value.get(name) is None else reader(value[name]) for name, reader in fields.items()
        }

    return read


def parse_json(value: bytes) -> dict[str, Any]:
    """The object that `value` holds, numbers as tokens. Raises ValueError for all but strict JSON."""

    def refuse(word: str) -> Any:
        raise ValueError(word)

    found = json.loads(
        value.decode("utf-8", errors="strict"),
        parse_int=NumberToken,
        parse_float=NumberToken,
        parse_constant=refuse,
    )
    if not isinstance(found, dict):
        raise ValueError("not an object")
    return found
