"""The exact reading of one record, in Python: the word on every record that the fast path cannot vouch for.

What this module says is what Headrace means by a schema. The fast path in `decode` may only be stricter.
It never sees a batch, so an outcome is a function of the record.
"""

from __future__ import annotations

import base64
import binascii
import json
import math
import re
import struct
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import ROUND_HALF_UP, Context, Decimal
from functools import lru_cache, partial
from typing import Any, NoReturn

from headrace.declare import Column, DataType, ListType, MapType, ScalarType, StructType
from headrace.rows.decode import TIME_SHAPE, TIMESTAMP_SHAPE

__all__ = ["DEPTH_MAX", "Reading", "read_record"]

DEPTH_MAX = 64
"""How deep objects and lists may stand inside one another."""

_TOKEN = re.compile(rb'"(?:[^"\\]|\\.)*"?|[\[\]{}]', re.DOTALL)
_INTEGER = re.compile(r"-?[0-9]+")
_TIMESTAMP = re.compile(TIMESTAMP_SHAPE)
_TIME = re.compile(TIME_SHAPE)
_ZONE = re.compile(r"(?<=.{10})(Z|[+-][0-9:]+)$")
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_UUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_SURROGATE = re.compile(r"[\ud800-\udfff]")
_DECIMAL_CONTEXT = Context(prec=100, rounding=ROUND_HALF_UP)
_BITS = {"TINYINT": 8, "SMALLINT": 16, "INTEGER": 32, "BIGINT": 64, "HUGEINT": 128}
_RANGES = {
    **{name: (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) for name, bits in _BITS.items()},
    **{f"U{name}": (0, 2**bits - 1) for name, bits in _BITS.items()},
    # Arrow carries it in 128 bits with a sign.
    "UHUGEINT": (0, 2**127 - 1),
}


@dataclass(frozen=True)
class Reading:
    """What one record says: `text` for the trusting form of `decode`, or the reasons why it is malformed."""

    text: str
    reasons: tuple[tuple[str, str], ...]


class _Number(str):
    """A number as it is written."""

    __slots__ = ()


class _Pairs(list[tuple[str, Any]]):
    """An object: its fields in their order, repeated ones too."""

    def first(self) -> dict[str, Any]:
        """The fields by name; of a repeated one, the first."""
        return dict(reversed(self))


class _Malformed(Exception):
    """A value is not what its column declares."""


class _Raw(str):
    """JSON text that stands in a reading as it is."""

    __slots__ = ()


def read_record(value: bytes | None, columns: tuple[Column, ...], event_time: str | None) -> Reading:
    """Read `value` by the declared `columns`; every problem with a column is told, none of the payload is."""
    document, problem = _parse(value)
    if problem is not None:
        return Reading("", (problem,))
    if not isinstance(document, _Pairs):
        return Reading("", (("json", f"expected an object, found {_named(document)}"),))
    fields = document.first()
    reasons: list[tuple[str, str]] = []
    texts: dict[str, Any] = {}
    for column in columns:
        found = fields.get(column.name)
        try:
            if found is None and not column.nullable:
                raise _Malformed(
                    "is NULL, and declared NOT NULL"
                    if column.name in fields
                    else "is missing, and declared NOT NULL"
                )
            texts[column.name] = None if found is None else _convert(column.type, found)
        except _Malformed as problem_of_column:
            reasons.append((f"column:{column.name}", str(problem_of_column)))
        else:
            if found is None and column.name == event_time:
                reasons.append(("event_time", f"column {column.name} is missing or NULL"))
    return Reading("" if reasons else _write(texts), tuple(reasons))


def _parse(value: bytes | None) -> tuple[Any, tuple[str, str] | None]:
    if value is None:
        return None, ("json", "the record has no value (a tombstone)")
    if not value:
        return None, ("json", "the value is empty")
    try:
        text = value.decode("utf-8")
    except UnicodeDecodeError as error:
        return None, ("utf8", f"invalid UTF-8 at byte {error.start}")
    if text.startswith("\ufeff"):
        return None, ("json", "the value starts with a byte order mark")
    if value.count(b"{") + value.count(b"[") > DEPTH_MAX and _depth(value) > DEPTH_MAX:
        return None, ("json", f"nested deeper than {DEPTH_MAX} levels")
    try:
        document = _DECODER.decode(text)
    except json.JSONDecodeError as error:
        return None, ("json", f"not JSON: {_reason(error.msg)} at character {error.pos}")
    except _Malformed as error:
        return None, ("json", str(error))
    if "\\u" in text and _has_surrogate(document):
        return None, ("json", "a string holds half of a surrogate pair")
    return document, None


def _reason(message: str) -> str:
    return message[:1].lower() + message[1:].removesuffix(" at")  # some of Python's say it already


def _refuse_constant(word: str) -> NoReturn:
    raise _Malformed(f"not JSON: {word} is not a JSON value")


_DECODER = json.JSONDecoder(
    object_pairs_hook=_Pairs, parse_int=_Number, parse_float=_Number, parse_constant=_refuse_constant
)


def _depth(value: bytes) -> int:
    depth = deepest = 0
    for match in _TOKEN.finditer(value):
        token = value[match.start()]
        if token in b"[{":
            depth += 1
            deepest = max(deepest, depth)
        elif token in b"]}":
            depth -= 1
    return deepest


def _has_surrogate(value: Any) -> bool:
    if isinstance(value, _Pairs):
        return any(_SURROGATE.search(name) or _has_surrogate(part) for name, part in value)
    if isinstance(value, list):
        return any(_has_surrogate(part) for part in value)
    return isinstance(value, str) and _SURROGATE.search(value) is not None


def _named(value: Any) -> str:
    """What `value` is, in words, without what it says."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "a boolean"
    if isinstance(value, _Number):
        return "a number"
    if isinstance(value, str):
        return "a string"
    return "an object" if isinstance(value, _Pairs) else "a list"


def _write(value: Any) -> str:
    """Write JSON text; a `_Raw` stands as it is."""
    if isinstance(value, _Raw):
        return str(value)
    if isinstance(value, dict):
        return "{" + ",".join(f"{json.dumps(name)}:{_write(part)}" for name, part in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(_write(part) for part in value) + "]"
    return json.dumps(value)


def _original(value: Any) -> _Raw:
    """The JSON text of a parsed value, with its numbers as they were written."""
    if isinstance(value, _Pairs):
        parts = (f"{json.dumps(name)}:{_original(part)}" for name, part in value)
        return _Raw("{" + ",".join(parts) + "}")
    if isinstance(value, list):
        return _Raw("[" + ",".join(_original(part) for part in value) + "]")
    return _Raw(value) if isinstance(value, _Number) else _Raw(json.dumps(value))


def _convert(kind: DataType, value: Any) -> Any:
    """Return `value` for the trusting form; raises _Malformed with what was wrong."""
    if value is None:
        return None
    if isinstance(kind, ScalarType):
        if kind.sql == "JSON":
            return _original(value)
        expected, read = _reader(kind.sql)
        if not isinstance(value, expected) or (expected is str and isinstance(value, _Number)):
            raise _Malformed(f"expected {_shown(kind)}, found {_named(value)}")
        return read(value)
    if isinstance(kind, ListType):
        if isinstance(value, _Pairs) or not isinstance(value, list):
            raise _Malformed(f"expected a list, found {_named(value)}")
        return [_inside(f"item {at}", kind.item, part) for at, part in enumerate(value, 1)]
    if not isinstance(value, _Pairs):
        raise _Malformed(f"expected an object, found {_named(value)}")
    if isinstance(kind, StructType):
        fields = value.first()
        return {name: _inside(f"field {name}", part, fields.get(name)) for name, part in kind.fields}
    return _map(kind, value)


def _inside(place: str, kind: DataType, value: Any) -> Any:
    try:
        return _convert(kind, value)
    except _Malformed as error:
        separator = ", " if str(error).startswith(("item", "field", "key", "value")) else ": "
        raise _Malformed(f"{place}{separator}{error}") from None


def _map(kind: MapType, value: _Pairs) -> dict[str, Any]:
    entries: dict[str, Any] = {}
    for at, (name, part) in enumerate(value, 1):
        key = _inside(f"key {at}", kind.key, _key(kind.key, name))
        if isinstance(key, bool):
            key = "true" if key else "false"
        if not isinstance(key, str):
            raise _Malformed(f"key {at}: {kind.key.sql} cannot be a key in JSON")
        if key in entries:
            raise _Malformed(f"key {at}: the same key a second time")
        entries[key] = _inside(f"value {at}", kind.value, part)
    return entries


def _key(kind: DataType, name: str) -> Any:
    """A field's name as a value of the key's type: its text is what would stand in the JSON."""
    expected = _EXPECTED.get(kind.sql, _Number if kind.sql.startswith("DECIMAL") else str)
    if expected is str:
        return name
    try:
        parsed = _DECODER.decode(name)
    except (json.JSONDecodeError, _Malformed):
        return name
    return parsed if isinstance(parsed, _Number | bool) else name


def _shown(kind: DataType) -> str:
    return kind.sql.replace("TIMESTAMP WITH TIME ZONE", "TIMESTAMP")


@lru_cache(maxsize=1_000)
def _reader(kind: str) -> tuple[type, Callable[[Any], Any]]:
    """What a scalar type expects of a parsed value, and how it reads it."""
    if kind in _RANGES:
        return _Number, partial(_integer, kind)
    if kind.startswith("DECIMAL"):
        precision, scale = (int(part) for part in kind[8:-1].split(","))
        return _Number, partial(_decimal, kind, precision, scale)
    return _EXPECTED.get(kind, str), _READERS[kind]


def _integer(kind: str, text: str) -> str:
    if not _INTEGER.fullmatch(text):
        raise _Malformed(f"expected {kind}, found a number with a point or an exponent")
    low, high = _RANGES[kind]
    if len(text) > 45 or not low <= int(text) <= high:
        raise _Malformed(f"out of range for {kind}")
    return str(int(text))


def _decimal(kind: str, precision: int, scale: int, text: str) -> str:
    mantissa, _, exponent = text.lower().partition("e")
    digits = mantissa.replace("-", "").replace(".", "").lstrip("0")
    if not digits:
        return "0"
    # The first digit's place decides before anything is computed: an exponent may ask for gigabytes of zeros.
    exponent = exponent or "0"
    shift = int(exponent) if len(exponent) < 19 else (-(10**18) if exponent[0] == "-" else 10**18)
    decimals = len(mantissa.partition(".")[2])
    magnitude = len(digits) - decimals + shift
    if magnitude > precision - scale:
        raise _Malformed(f"out of range for {kind}")
    if magnitude < -scale:
        return "0"
    sign = "-" if mantissa.startswith("-") else ""
    keep = magnitude + scale
    units = int(digits[:keep].ljust(keep, "0") or "0") + (digits[keep : keep + 1] >= "5")
    if units >= 10**precision:
        raise _Malformed(f"out of range for {kind}")
    shown = format(Decimal(units).scaleb(-scale, _DECIMAL_CONTEXT), "f")
    return sign + shown


def _double(text: str) -> str:
    number = float(text) if text != "-0" else 0.0  # an integer, as DuckDB reads it
    if math.isinf(number):
        raise _Malformed("out of range for DOUBLE")
    return repr(number)


def _float(text: str) -> str:
    number = float(text) if text != "-0" else 0.0
    try:
        struct.pack("f", number)
    except OverflowError:
        raise _Malformed("out of range for FLOAT") from None
    if math.isinf(number):
        raise _Malformed("out of range for FLOAT")
    return repr(number)


def _timestamp(text: str) -> str:
    if not _TIMESTAMP.fullmatch(text):
        raise _Malformed("expected TIMESTAMP, found a string that is not an ISO 8601 instant")
    zone = _ZONE.search(text)
    clock = text[: zone.start()] if zone else text
    whole, _, fraction = clock.partition(".")
    try:
        moment = datetime.fromisoformat(whole).replace(tzinfo=UTC)
        # Digits after the sixth are cut off, as DuckDB does.
        moment += timedelta(microseconds=int(fraction[:6].ljust(6, "0")) if fraction else 0)
        if zone and zone.group() != "Z":
            offset = zone.group()[1:].replace(":", "")
            length = timedelta(hours=int(offset[:2]), minutes=int(offset[2:] or 0))
            moment += length if zone.group()[0] == "-" else -length
    except ValueError:
        raise _Malformed("expected TIMESTAMP, found a day or time that does not exist") from None
    except OverflowError:
        raise _Malformed("out of range for TIMESTAMP (years 1 to 9999)") from None
    return moment.replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"


def _date(text: str) -> str:
    try:
        if _DATE.fullmatch(text):
            return date.fromisoformat(text).isoformat()
    except ValueError:
        raise _Malformed("expected DATE, found a day that does not exist") from None
    raise _Malformed("expected DATE, found a string that is not YYYY-MM-DD")


def _time(text: str) -> str:
    if not _TIME.fullmatch(text):
        raise _Malformed("expected TIME, found a string that is not HH:MM[:SS[.ffffff]]")
    return text


def _uuid(text: str) -> str:
    if not _UUID.fullmatch(text):
        raise _Malformed("expected UUID, found a string that is not one")
    return text


def _blob(text: str) -> str:
    try:
        if base64.b64encode(base64.b64decode(text, validate=True)).decode() == text:
            return text
    except (binascii.Error, ValueError):
        pass
    raise _Malformed("expected BLOB, found a string that is not base64")


_EXPECTED: dict[str, type] = {
    **dict.fromkeys((*_RANGES, "DOUBLE", "FLOAT"), _Number),
    "BOOLEAN": bool,
}
_READERS: dict[str, Callable[[Any], Any]] = {
    "VARCHAR": str,
    "BOOLEAN": bool,
    "DOUBLE": _double,
    "FLOAT": _float,
    "TIMESTAMP WITH TIME ZONE": _timestamp,
    "DATE": _date,
    "TIME": _time,
    "UUID": _uuid,
    "BLOB": _blob,
}
