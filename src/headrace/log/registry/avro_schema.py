"""Avro schemas: read, checked, and written in one form.

A schema becomes a tree of `AvroType`; a name that a schema uses again is the same object again, so a
recursive schema is a cycle. The rules are those of the Avro 1.12 specification, "Schema Declaration".
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from headrace.errors import HeadraceError, InternalError

__all__ = [
    "PRIMITIVES",
    "AvroField",
    "AvroType",
    "SchemaInvalid",
    "canonical_avro",
    "not_json",
    "parse_avro",
    "shape_of",
]

PRIMITIVES = ("null", "boolean", "int", "long", "float", "double", "bytes", "string")
_NAMED = ("record", "error", "enum", "fixed")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_ORDER = (
    *("type", "name", "namespace", "doc", "fields", "symbols", "items", "values", "size", "logicalType"),
    *("precision", "scale", "default", "order", "aliases"),
)
_NESTING_MAX = 200
NO_DEFAULT: Any = object()


class SchemaInvalid(HeadraceError):
    """A text is not a schema; the message says where and why, without the text."""


@dataclass(eq=False)
class AvroField:
    """A field of a record. `default` is JSON as the schema has it, or `NO_DEFAULT`."""

    name: str
    type: AvroType
    default: Any = NO_DEFAULT
    aliases: tuple[str, ...] = ()

    @property
    def has_default(self) -> bool:
        """Whether a reader can do without the field."""
        return self.default is not NO_DEFAULT


@dataclass(eq=False)
class AvroType:
    """One type. What a kind does not have is empty; `logical` only where its rules are met.

    kind      one of PRIMITIVES, or record, enum, fixed, array, map, union
    name      the full name of a record, enum or fixed
    items     what an array or a map holds
    """

    kind: str
    name: str = ""
    aliases: tuple[str, ...] = ()
    fields: list[AvroField] = field(default_factory=list)
    symbols: tuple[str, ...] = ()
    default: str | None = None
    items: AvroType | None = None
    branches: tuple[AvroType, ...] = ()
    size: int = 0
    logical: str = ""
    precision: int = 0
    scale: int = 0

    @property
    def inner(self) -> AvroType:
        """What an array or a map holds."""
        if self.items is None:
            raise InternalError(f"an Avro {self.kind} holds nothing")
        return self.items

    @property
    def simple_name(self) -> str:
        """The name without its namespace."""
        return self.name.rpartition(".")[2]


def parse_avro(text: str, references: Iterable[str] = ()) -> AvroType:
    """Read a schema; `references` are the texts of schemas whose names it uses, in the order of their use.

    Raises SchemaInvalid.
    """
    parser = _Parser()
    for reference in references:
        parser.read(_json(reference), "", "")
    return parser.read(_json(text), "", "")


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        if text.strip() in PRIMITIVES:
            return text.strip()
        raise not_json(error) from None


def not_json(error: ValueError | RecursionError) -> SchemaInvalid:
    """Return what to say of a schema's text that `json.loads` does not take."""
    reason = "nested too deep"
    if isinstance(error, json.JSONDecodeError):
        reason = f"{error.msg} (line {error.lineno}, column {error.colno})"
    return SchemaInvalid(f"the schema is not JSON: {reason}", fix="send the schema as JSON text")


class _Parser:
    def __init__(self) -> None:
        self.named: dict[str, AvroType] = {}
        self.depth = 0

    def read(self, raw: Any, namespace: str, path: str) -> AvroType:
        self.depth += 1
        if self.depth > _NESTING_MAX:
            raise SchemaInvalid(f"the schema is nested deeper than {_NESTING_MAX} levels")
        try:
            if isinstance(raw, str):
                return self._by_name(raw, namespace, path)
            if isinstance(raw, list):
                return self._union(raw, namespace, path)
            if isinstance(raw, Mapping):
                return self._object(raw, namespace, path)
        finally:
            self.depth -= 1
        raise _wrong(path, "a type is a name, a list or an object")

    def _by_name(self, name: str, namespace: str, path: str) -> AvroType:
        if name in PRIMITIVES:
            return AvroType(name)
        for full in (name if "." in name or not namespace else f"{namespace}.{name}", name):
            if full in self.named:
                return self.named[full]
        raise _wrong(path, f"unknown type '{name[:100]}'")

    def _union(self, raw: list[Any], namespace: str, path: str) -> AvroType:
        branches = tuple(self.read(each, namespace, f"{path}/{at}") for at, each in enumerate(raw))
        seen: set[str] = set()
        for branch in branches:
            if branch.kind == "union":
                raise _wrong(path, "a union stands directly in a union")
            word = branch.name or branch.kind
            if word in seen:
                raise _wrong(path, f"the union holds '{word}' twice")
            seen.add(word)
        return AvroType("union", branches=branches)

    def _object(self, raw: Mapping[str, Any], namespace: str, path: str) -> AvroType:
        kind = raw.get("type")
        if isinstance(kind, Mapping | list):
            return self.read(kind, namespace, path)
        if kind in ("array", "map"):
            word = "items" if kind == "array" else "values"
            if word not in raw:
                raise _wrong(
                    path, f"an {kind} without '{word}'" if kind == "array" else "a map without 'values'"
                )
            return AvroType(kind, items=self.read(raw[word], namespace, f"{path}/{word}"))
        if kind in _NAMED:
            return self._named(str(kind), raw, namespace, path)
        if not isinstance(kind, str):
            raise _wrong(path, "a type without 'type'")
        found = self._by_name(kind, namespace, path)
        return _with_logical(AvroType(found.kind), raw) if kind in PRIMITIVES else found

    def _named(self, kind: str, raw: Mapping[str, Any], namespace: str, path: str) -> AvroType:
        full, inner = _full_name(raw, namespace, path)
        if full in self.named or full in PRIMITIVES:
            raise _wrong(path, f"the name '{full}' is used twice")
        found = AvroType("record" if kind == "error" else kind, name=full)
        found.aliases = tuple(_in_namespace(each, inner) for each in _strings(raw, "aliases", path))
        self.named[full] = found
        if kind == "enum":
            found.symbols = _symbols(raw, path)
            found.default = raw.get("default")
            if found.default is not None and found.default not in found.symbols:
                raise _wrong(path, "the default of the enum is not one of its symbols")
        elif kind == "fixed":
            size = raw.get("size")
            if not isinstance(size, int) or isinstance(size, bool) or size < 0:
                raise _wrong(path, "a fixed without a 'size'")
            found.size = size
            _with_logical(found, raw)
        else:
            self._fields(found, raw, inner, path)
        return found

    def _fields(self, record: AvroType, raw: Mapping[str, Any], namespace: str, path: str) -> None:
        fields = raw.get("fields")
        if not isinstance(fields, list):
            raise _wrong(path, "a record without 'fields'")
        seen: set[str] = set()
        for at, each in enumerate(fields):
            place = f"{path}/fields/{at}"
            if not isinstance(each, Mapping) or "type" not in each:
                raise _wrong(place, "a field is an object with 'name' and 'type'")
            name = each.get("name")
            if not isinstance(name, str) or not _NAME.fullmatch(name):
                raise _wrong(place, "the field has no proper name")
            if name in seen:
                raise _wrong(place, f"a second field '{name}'")
            seen.add(name)
            default = each.get("default", NO_DEFAULT)
            kind = self.read(each["type"], namespace, f"{place}/type")
            if default is not NO_DEFAULT and not _is_default(kind, default):
                raise _wrong(place, f"the default of field '{name}' is not of its type")
            record.fields.append(AvroField(name, kind, default, _strings(each, "aliases", place)))


def _wrong(path: str, what: str) -> SchemaInvalid:
    return SchemaInvalid(f"the schema is not Avro: {what}" + (f" (at {path})" if path else ""))


def _strings(raw: Mapping[str, Any], word: str, path: str) -> tuple[str, ...]:
    found = raw.get(word, ())
    if not isinstance(found, list | tuple) or not all(isinstance(each, str) for each in found):
        raise _wrong(path, f"'{word}' is not a list of names")
    return tuple(found)


def _symbols(raw: Mapping[str, Any], path: str) -> tuple[str, ...]:
    symbols = _strings(raw, "symbols", path) if "symbols" in raw else None
    if symbols is None:
        raise _wrong(path, "an enum without 'symbols'")
    if len(set(symbols)) < len(symbols) or not all(_NAME.fullmatch(each) for each in symbols):
        raise _wrong(path, "the symbols of an enum are different names")
    return symbols


def _full_name(raw: Mapping[str, Any], namespace: str, path: str) -> tuple[str, str]:
    """Return the full name, and the namespace in which names inside are looked up."""
    name = raw.get("name")
    if not isinstance(name, str) or not all(_NAME.fullmatch(part) for part in name.split(".")):
        raise _wrong(path, f"a {raw['type']} without a proper 'name'")
    if "." in name:
        return name, name.rpartition(".")[0]
    given = raw.get("namespace", namespace) or ""
    if not isinstance(given, str) or (given and not all(_NAME.fullmatch(part) for part in given.split("."))):
        raise _wrong(path, "the namespace is no proper name")
    return _in_namespace(name, given), given


def _in_namespace(name: str, namespace: str) -> str:
    return name if "." in name or not namespace else f"{namespace}.{name}"


_LOGICAL = {
    "date": ("int",),
    "time-millis": ("int",),
    "time-micros": ("long",),
    "timestamp-millis": ("long",),
    "timestamp-micros": ("long",),
    "timestamp-nanos": ("long",),
    "local-timestamp-millis": ("long",),
    "local-timestamp-micros": ("long",),
    "local-timestamp-nanos": ("long",),
    "uuid": ("string", "fixed"),
    "decimal": ("bytes", "fixed"),
    "duration": ("fixed",),
}


def _with_logical(found: AvroType, raw: Mapping[str, Any]) -> AvroType:
    """Note the logical type; one that is unknown or does not fit is passed over (Avro specification)."""
    word = raw.get("logicalType")
    if not isinstance(word, str) or found.kind not in _LOGICAL.get(word, ()):
        return found
    if word == "decimal":
        precision, scale = raw.get("precision"), raw.get("scale", 0)
        if (
            not isinstance(precision, int)
            or not isinstance(scale, int)
            or not 0 <= scale <= precision
            or not precision
        ):
            return found
        if found.kind == "fixed" and precision > math.floor(math.log10(2) * (8 * found.size - 1)):
            return found
        found.precision, found.scale = precision, scale
    if (word == "uuid" and found.kind == "fixed" and found.size != 16) or (
        word == "duration" and found.size != 12
    ):
        return found
    found.logical = word
    return found


_INT_BITS = {"int": 31, "long": 63}


def _is_default(kind: AvroType, value: Any) -> bool:
    """Whether `value` (JSON) may be the default of `kind`. In a union it may be of any branch."""
    if kind.kind == "union":
        return any(_is_default(branch, value) for branch in kind.branches)
    if kind.kind in _INT_BITS:
        limit = 1 << _INT_BITS[kind.kind]
        return isinstance(value, int) and not isinstance(value, bool) and -limit <= value < limit
    if kind.kind in ("float", "double"):
        return (isinstance(value, int | float) and not isinstance(value, bool)) or value in (
            "NaN",
            "INF",
            "-INF",
        )
    if kind.kind == "array":
        return isinstance(value, list) and all(_is_default(kind.inner, each) for each in value)
    if kind.kind == "map":
        return isinstance(value, dict) and all(_is_default(kind.inner, each) for each in value.values())
    if kind.kind == "record":
        return isinstance(value, dict) and all(
            _is_default(each.type, value[each.name]) if each.name in value else each.has_default
            for each in kind.fields
        )
    if kind.kind == "enum":
        return value in kind.symbols
    expected = {"null": type(None), "boolean": bool}.get(kind.kind, str)
    return isinstance(value, expected)


def shape_of(kind: AvroType) -> str:
    """Return what decides how bytes are read and what they mean, as text: two equal shapes read alike.

    Names, fields in their order, symbols, sizes and logical types; no documentation, aliases or defaults.
    """
    seen: set[int] = set()

    def tell(found: AvroType) -> Any:
        if found.name:
            if id(found) in seen:
                return found.name
            seen.add(id(found))
        logical = [found.logical, found.precision, found.scale] if found.logical else []
        if found.kind == "record":
            return ["record", found.name, [[each.name, tell(each.type)] for each in found.fields]]
        if found.kind == "enum":
            return ["enum", found.name, list(found.symbols)]
        if found.kind == "fixed":
            return ["fixed", found.name, found.size, *logical]
        if found.kind == "union":
            return ["union", *(tell(branch) for branch in found.branches)]
        if found.items is not None:
            return [found.kind, tell(found.items)]
        return [found.kind, *logical] if logical else found.kind

    return json.dumps(tell(kind), separators=(",", ":"))


def canonical_avro(text: str, *, normalize: bool = False) -> str:
    """Return the text by which two schemas are one: no white space, known attributes first, short names.

    With `normalize`, other attributes stand in the order of their names, and what says nothing is left out.
    """
    return json.dumps(_written(_json(text), "", normalize), separators=(",", ":"), ensure_ascii=False)


def _written(raw: Any, namespace: str, normalize: bool) -> Any:
    if isinstance(raw, list):
        return [_written(each, namespace, normalize) for each in raw]
    if not isinstance(raw, Mapping):
        return raw
    kind = raw.get("type")
    if isinstance(kind, str) and kind in PRIMITIVES and len(raw) == 1:
        return kind
    if isinstance(kind, Mapping | list) and len(raw) == 1:
        return _written(kind, namespace, normalize)
    found = dict(raw)
    if kind in _NAMED:
        full, inner = _full_name(raw, namespace, "")
        found["name"] = full.rpartition(".")[2]
        found.pop("namespace", None)
        if inner != namespace:
            found["namespace"] = inner
        namespace = inner
    for word in ("items", "values", "type"):
        if word in found and not (word == "type" and isinstance(kind, str)):
            found[word] = _written(found[word], namespace, normalize)
    if isinstance(found.get("fields"), list):
        found["fields"] = [_field(each, namespace, normalize) for each in found["fields"]]
    return _ordered(found, normalize)


def _field(raw: Any, namespace: str, normalize: bool) -> Any:
    if not isinstance(raw, Mapping):
        return raw
    found = dict(raw)
    found["type"] = _written(found.get("type"), namespace, normalize)
    if normalize and found.get("order") == "ascending":
        del found["order"]
    return _ordered(found, normalize, first="name")


def _ordered(found: dict[str, Any], normalize: bool, first: str = "type") -> dict[str, Any]:
    if normalize and found.get("aliases") == []:
        del found["aliases"]
    known = [first, *(word for word in _ORDER if word != first)]
    others = [word for word in found if word not in _ORDER]
    return {
        word: found[word] for word in (*known, *(sorted(others) if normalize else others)) if word in found
    }
