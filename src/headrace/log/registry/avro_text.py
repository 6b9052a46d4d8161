"""From a value of a writer's Avro schema to the JSON text that the declared columns are read from.

This is where schemas are resolved. A record of the declaration takes from the writer's record what it names,
by name or, with a reader's schema, by alias; what the writer does not have gets the reader's default.
Everything else is a question of text: an instant is ISO 8601 with Z, a decimal a number with all its digits,
bytes are base64. Whether the text is of the declared type the row stage decides, with the same rules as for
every JSON record.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Callable
from datetime import date, timedelta
from functools import lru_cache
from json.encoder import encode_basestring as quoted
from typing import Any

from headrace.declare import Column, DataType, ListType, MapType, ScalarType, StructType
from headrace.log.registry.avro_schema import AvroField, AvroType
from headrace.log.registry.wire import Unreadable

__all__ = ["TextMaker", "branch_for", "is_number", "resolved", "symbols_of"]

Text = Callable[[Any], str]
_NUMBERS = ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT", "DOUBLE", "FLOAT", "DECIMAL", "U")
_UNITS = {"millis": 1_000, "micros": 1_000_000, "nanos": 1_000_000_000}
_EPOCH = date(1970, 1, 1)
_DAYS_MIN, _DAYS_MAX = (date.min - _EPOCH).days, (date.max - _EPOCH).days
_DECIMAL_BYTES_MAX = 64


class TextMaker:
    """Makes the JSON text of values of `writer`, a record, for declared columns.

    reader   the schema to resolve against, or None: the declared columns alone

    A union's value comes as (branch, value), as `BinaryReader` gives it.
    """

    def __init__(self, writer: AvroType, columns: tuple[Column, ...], reader: AvroType | None) -> None:
        self._made: dict[tuple[int, int, int], list[Text]] = {}
        # Kept, because what was made is found again by the identity of these.
        self._row = row = StructType(tuple((column.name, column.type) for column in columns))
        self.text: Text = self._text(writer, row, reader)

    def _text(self, kind: AvroType, target: DataType | None, reader: AvroType | None) -> Text:
        if kind.kind in ("record", "union", "array", "map"):
            key = (id(kind), id(target), id(reader))
            if key in self._made:
                return _later(self._made[key])
            place: list[Text] = []
            self._made[key] = place
            place.append(self._compound(kind, target, reader))
            return place[0]
        return _scalar(kind, target, reader)

    def _compound(self, kind: AvroType, target: DataType | None, reader: AvroType | None) -> Text:
        if kind.kind == "union":
            return self._union(kind, target, reader)
        reader = branch_for(kind, reader)
        if kind.kind == "record":
            return self._record(kind, target, reader)
        inner = reader.items if reader is not None and reader.kind == kind.kind else None
        if kind.kind == "array":
            item = self._text(kind.inner, target.item if isinstance(target, ListType) else None, inner)
            return lambda value: "[" + ",".join([item(each) for each in value]) + "]"
        if isinstance(target, StructType):
            fields = {name: self._text(kind.inner, part, inner) for name, part in target.fields}
            return lambda value: (
                "{" + ",".join([f"{quoted(n)}:{t(value[n])}" for n, t in fields.items() if n in value]) + "}"
            )
        each = self._text(kind.inner, target.value if isinstance(target, MapType) else None, inner)
        return lambda value: "{" + ",".join([f"{quoted(n)}:{each(part)}" for n, part in value.items()]) + "}"

    def _record(self, kind: AvroType, target: DataType | None, reader: AvroType | None) -> Text:
        fields, constants = resolved(kind, target, reader)
        pieces = [
            (f"{quoted(name)}:", source.name, self._text(source.type, part, own))
            for name, source, part, own in fields
        ]

        def text_of(value: Any) -> str:
            return "{" + ",".join([head + text(value[name]) for head, name, text in pieces] + constants) + "}"

        return text_of

    def _union(self, kind: AvroType, target: DataType | None, reader: AvroType | None) -> Text:
        texts = [self._text(branch, target, branch_for(branch, reader)) for branch in kind.branches]
        return lambda value: texts[value[0]](value[1])

    @staticmethod
    def of_type(kind: AvroType, target: DataType | None) -> Text:
        """Return what makes the text of values of one type; a union's value is a pair."""
        maker = TextMaker.__new__(TextMaker)
        maker._made = {}
        return maker._text(kind, target, None)


def default_text(field: AvroField, target: DataType | None) -> str:
    """Return the text of a reader's default."""
    return TextMaker.of_type(field.type, target)(_of_default(field.type, field.default))


def _later(place: list[Text]) -> Text:
    """Return what stands in `place` when it is called: a type that holds itself."""

    def text(value: Any) -> str:
        return place[0](value)

    return text


Resolved = tuple[str, AvroField, DataType | None, AvroType | None]


def resolved(
    kind: AvroType, target: DataType | None, reader: AvroType | None
) -> tuple[list[Resolved], list[str]]:
    """Return what the text of a record holds: its fields, and the texts of those with a reader's default.

    A field is its name, the writer's field that it takes its value from, what is declared for it, and its
    type in the reader's schema. With such a schema only what stands in it is taken, by name or by alias.
    """
    written = {each.name: each for each in kind.fields}
    wanted = dict(target.fields) if isinstance(target, StructType) else None
    read = {each.name: each for each in reader.fields} if reader and reader.kind == "record" else None
    rest = target.value if isinstance(target, MapType) else None
    fields: list[Resolved] = []
    constants: list[str] = []
    for name in wanted if wanted is not None else written if read is None else read:
        own = None if read is None else read.get(name)
        if read is not None and own is None:
            continue
        part = rest if wanted is None else wanted[name]
        older = () if own is None else own.aliases
        source = next((written[each] for each in (name, *older) if each in written), None)
        if source is not None:
            fields.append((name, source, part, None if own is None else own.type))
        elif own is not None and own.has_default:
            constants.append(f"{quoted(name)}:{default_text(own, part)}")
    return fields, constants


def branch_for(kind: AvroType, reader: AvroType | None) -> AvroType | None:
    """Return the branch of a reader's union that takes `kind`; another reader as it is."""
    if reader is None or reader.kind != "union":
        return reader
    named = [b for b in reader.branches if b.kind == kind.kind and b.simple_name == kind.simple_name]
    return next(iter([*named, *(b for b in reader.branches if b.kind == kind.kind)]), None)


def _of_default(kind: AvroType, value: Any) -> Any:
    """Return a default, which is JSON, as `BinaryReader` would have given it."""
    if kind.kind == "union":
        for number, branch in enumerate(kind.branches):
            try:
                return number, _of_default(branch, value)
            except (TypeError, ValueError, KeyError, AttributeError):
                continue
        raise ValueError("the default is of no branch")
    if kind.kind in ("bytes", "fixed"):
        return value.encode("latin-1")
    if kind.kind == "array":
        return [_of_default(kind.inner, each) for each in list(value)]
    if kind.kind == "map":
        return {name: _of_default(kind.inner, each) for name, each in value.items()}
    if kind.kind == "record":
        return {each.name: _of_default(each.type, value.get(each.name, each.default)) for each in kind.fields}
    expected = _OF_DEFAULT.get(kind.kind, (str,))
    if not isinstance(value, expected) or (isinstance(value, bool) and kind.kind != "boolean"):
        raise ValueError("the default is of another type")
    return value


_OF_DEFAULT: dict[str, tuple[type, ...]] = {
    "null": (type(None),),
    "boolean": (bool,),
    "int": (int,),
    "long": (int,),
    "float": (int, float),
    "double": (int, float),
}


# -- scalars -------------------------------------------------------------------------------------------------


def _scalar(kind: AvroType, target: DataType | None, reader: AvroType | None) -> Text:
    sql = target.sql if isinstance(target, ScalarType) else ""
    if kind.logical and not (is_number(sql) and kind.kind in ("int", "long")):
        return _logical(kind)
    if kind.kind == "enum":
        return _enum_text(kind, reader)
    if kind.kind == "string":
        return (lambda value: _base64(value.encode())) if sql == "BLOB" else quoted
    if kind.kind in ("bytes", "fixed"):
        return _utf8 if sql == "VARCHAR" and kind.kind == "bytes" else _base64
    return _PLAIN[kind.kind]


def _enum_text(kind: AvroType, reader: AvroType | None) -> Text:
    known = {
        symbol: quoted(said) for symbol, said in zip(kind.symbols, symbols_of(kind, reader), strict=True)
    }
    return lambda value: known[value]


def symbols_of(kind: AvroType, reader: AvroType | None) -> list[str]:
    """Return what each of the writer's symbols is to the reader: itself, or the reader's default."""
    branch = branch_for(kind, reader)
    if branch is None or branch.kind != "enum" or branch.default is None:
        return list(kind.symbols)
    return [symbol if symbol in branch.symbols else branch.default for symbol in kind.symbols]


def is_number(sql: str) -> bool:
    """Whether a declared type takes the number that stands behind a logical type."""
    return sql.startswith(_NUMBERS)


def _logical(kind: AvroType) -> Text:
    word, _, unit = kind.logical.rpartition("-")
    if kind.logical == "decimal":
        return lambda value: _decimal(value, kind.scale)
    if kind.logical == "date":
        return lambda value: f'"{_day(value)}"'
    if kind.logical == "uuid":
        return quoted if kind.kind == "string" else _uuid
    if kind.logical == "duration":
        return _duration
    each = _UNITS[unit]
    digits = len(str(each)) - 1
    if word == "time":
        return lambda value: f'"{_clock(value, each, digits)}"'

    def instant(value: int) -> str:
        days, rest = divmod(value, 86_400 * each)
        seconds, fraction = divmod(rest, each)
        return f'"{_day(days)}T{_CLOCKS[seconds // 60]}:{seconds % 60:02d}.{fraction:0{digits}d}Z"'

    return instant


_CLOCKS = [f"{minute // 60:02d}:{minute % 60:02d}" for minute in range(24 * 60)]


@lru_cache(maxsize=4_000)
def _day(days: int) -> str:
    if not _DAYS_MIN <= days <= _DAYS_MAX:
        raise Unreadable("avro", "a day outside of the years 1 to 9999")
    return (_EPOCH + timedelta(days=days)).isoformat()


def _clock(value: int, each: int, digits: int) -> str:
    seconds, fraction = divmod(value, each)
    if not 0 <= seconds < 86_400:
        raise Unreadable("avro", "a time of day outside of 24 hours")
    return f"{_CLOCKS[seconds // 60]}:{seconds % 60:02d}.{fraction:0{digits}d}"


def _decimal(value: bytes, scale: int) -> str:
    if len(value) > _DECIMAL_BYTES_MAX:
        raise Unreadable("avro", f"a decimal of {len(value)} bytes")
    number = int.from_bytes(value, "big", signed=True)
    if not scale:
        return str(number)
    digits = str(abs(number)).rjust(scale + 1, "0")
    return f"{'-' if number < 0 else ''}{digits[:-scale]}.{digits[-scale:]}"


def _uuid(value: bytes) -> str:
    text = value.hex()
    return f'"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"'


def _duration(value: bytes) -> str:
    months, days, millis = (int.from_bytes(value[at : at + 4], "little") for at in (0, 4, 8))
    return f'"P{months}M{days}DT{millis // 1000}.{millis % 1000:03d}S"'


def _base64(value: bytes) -> str:
    return f'"{base64.b64encode(value).decode()}"'


def _utf8(value: bytes) -> str:
    try:
        return quoted(value.decode("utf-8"))
    except UnicodeDecodeError:
        raise Unreadable("avro", "bytes for a VARCHAR that are not UTF-8") from None


def _double(value: float) -> str:
    # JSON has no word for these; the row stage says so of this one.
    return repr(value) if math.isfinite(value) else "NaN"


_PLAIN: dict[str, Text] = {
    "null": lambda value: "null",
    "boolean": lambda value: "true" if value else "false",
    "int": str,
    "long": str,
    "float": _double,
    "double": _double,
}
