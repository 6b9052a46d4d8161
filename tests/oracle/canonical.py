"""One way to write a value, so that answers of the engine, of the oracle and on disk can be compared."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Iterable, Mapping
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

Row = Mapping[str, Any]


def plain(value: Any) -> Any:
    """`value` in JSON: instants, dates and decimals as texts; a decimal of scale 0 is a number."""
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, Decimal):
        return int(value) if value.as_tuple().exponent == 0 else format(value, "f")
    if isinstance(value, bytes):
        return {"base64": base64.b64encode(value).decode()}
    if isinstance(value, Mapping):
        return {name: plain(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [plain(part) for part in value]
    return value


def rows(found: Iterable[Row]) -> list[dict[str, Any]]:
    """Rows in JSON, in an order of their own that does not depend on the last digits of doubles."""
    return sorted((plain(row) for row in found), key=lambda row: json.dumps(_rounded(row), sort_keys=True))


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return f"{value:.9g}"
    if isinstance(value, dict):
        return {name: _rounded(part) for name, part in value.items()}
    return [_rounded(part) for part in value] if isinstance(value, list) else value


def same(one: Any, other: Any) -> bool:
    """Whether two values in JSON are equal; doubles nearly, and a double is never a whole number."""
    if isinstance(one, float) and isinstance(other, float):
        return math.isclose(one, other, rel_tol=1e-9, abs_tol=1e-12)
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        return list(one) == list(other) and all(same(one[name], other[name]) for name in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)


def differences(expected: Any, given: Any, place: str = "") -> list[str]:
    """What differs, one line each, the place first; empty when nothing does."""
    if same(expected, given):
        return []
    if isinstance(expected, dict) and isinstance(given, dict) and list(expected) == list(given):
        return [
            line for name in expected for line in differences(expected[name], given[name], f"{place}/{name}")
        ]
    if isinstance(expected, list) and isinstance(given, list):
        missing, extra = list(expected), []
        for one in given:
            twin = next((number for number, other in enumerate(missing) if same(one, other)), None)
            if twin is None:
                extra.append(one)
            else:
                del missing[twin]
        return [f"{place}: missing {one}" for one in missing] + [
            f"{place}: not expected {one}" for one in extra
        ]
    return [f"{place}: expected {expected}, got {given}"]
