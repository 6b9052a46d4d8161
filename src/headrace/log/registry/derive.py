"""The schema of a stream's declared columns, as producers register it: Avro or JSON Schema."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

from headrace.declare import Column, DataType, ListType, MapType, ScalarType, StructType
from headrace.errors import RefusedError

__all__ = ["avro_of", "json_schema_of"]

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_AVRO: dict[str, Any] = {
    "BOOLEAN": "boolean",
    **dict.fromkeys(("TINYINT", "SMALLINT", "INTEGER", "UTINYINT", "USMALLINT"), "int"),
    **dict.fromkeys(("BIGINT", "UINTEGER"), "long"),
    "UBIGINT": {"type": "bytes", "logicalType": "decimal", "precision": 20, "scale": 0},
    "HUGEINT": {"type": "bytes", "logicalType": "decimal", "precision": 39, "scale": 0},
    "UHUGEINT": {"type": "bytes", "logicalType": "decimal", "precision": 39, "scale": 0},
    "FLOAT": "float",
    "DOUBLE": "double",
    "VARCHAR": "string",
    "TIMESTAMP WITH TIME ZONE": {"type": "long", "logicalType": "timestamp-micros"},
    "DATE": {"type": "int", "logicalType": "date"},
    "TIME": {"type": "long", "logicalType": "time-micros"},
    "UUID": {"type": "string", "logicalType": "uuid"},
    "BLOB": "bytes",
}
_BITS = {"TINYINT": 8, "SMALLINT": 16, "INTEGER": 32, "BIGINT": 64, "HUGEINT": 128}
_JSON: dict[str, dict[str, Any]] = {
    "BOOLEAN": {"type": "boolean"},
    **{
        name: {"type": "integer", "minimum": -(2 ** (bits - 1)), "maximum": 2 ** (bits - 1) - 1}
        for name, bits in _BITS.items()
    },
    **{f"U{name}": {"type": "integer", "minimum": 0, "maximum": 2**bits - 1} for name, bits in _BITS.items()},
    "FLOAT": {"type": "number"},
    "DOUBLE": {"type": "number"},
    "VARCHAR": {"type": "string"},
    "TIMESTAMP WITH TIME ZONE": {"type": "string", "format": "date-time"},
    "DATE": {"type": "string", "format": "date"},
    "TIME": {"type": "string"},
    "UUID": {"type": "string", "format": "uuid"},
    "BLOB": {"type": "string", "contentEncoding": "base64"},
    "JSON": {},
}


def avro_of(stream: str, columns: tuple[Column, ...]) -> str:
    """Return the Avro schema of declared columns, a record with the stream's name.

    A column that may be NULL is a union with null and has the default null, so that it can be added later.
    Raises RefusedError for a column that Avro has no type for.
    """
    writer = _Avro(stream)
    fields = [writer.field(column.name, column.type, column.nullable, (column.name,)) for column in columns]
    return json.dumps({"type": "record", "name": stream, "fields": fields}, separators=(",", ":"))


class _Avro:
    def __init__(self, stream: str) -> None:
        self.stream = stream

    def field(self, name: str, kind: DataType, nullable: bool, path: tuple[str, ...]) -> dict[str, Any]:
        if not _NAME.fullmatch(name):
            self._refuse(path, "its name is none in Avro, which takes letters, digits and _")
        found = self.type(kind, path)
        return (
            {"name": name, "type": ["null", found], "default": None}
            if nullable
            else {"name": name, "type": found}
        )

    def type(self, kind: DataType, path: tuple[str, ...]) -> Any:
        if isinstance(kind, ScalarType):
            if kind.sql.startswith("DECIMAL"):
                precision, scale = (int(part) for part in kind.sql[8:-1].split(","))
                return {"type": "bytes", "logicalType": "decimal", "precision": precision, "scale": scale}
            if kind.sql not in _AVRO:
                self._refuse(path, f"Avro has no type for {kind.sql}")
            return _AVRO[kind.sql]
        if isinstance(kind, ListType):
            return {"type": "array", "items": ["null", self.type(kind.item, (*path, "item"))]}
        if isinstance(kind, MapType):
            if kind.key.sql != "VARCHAR":
                self._refuse(path, "the keys of a map in Avro are VARCHAR")
            return {"type": "map", "values": ["null", self.type(kind.value, (*path, "value"))]}
        fields = [self.field(name, part, True, (*path, name)) for name, part in kind.fields]
        return {"type": "record", "name": "_".join((self.stream, *path)), "fields": fields}

    def _refuse(self, path: tuple[str, ...], what: str) -> None:
        raise RefusedError(
            f"stream '{self.stream}', column '{'.'.join(path)}': {what}",
            fix='declare another type, or name a schema of your own: registry_schema = "FILE.avsc"',
        )


def json_schema_of(stream: str, columns: tuple[Column, ...]) -> str:
    """Return the JSON Schema (draft 7) of declared columns.

    It is closed: other fields are refused, so that a column can be added later and old records stay valid.
    """
    fields = tuple((column.name, column.type) for column in columns)
    document: dict[str, Any] = {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": stream,
        **_object(fields, lambda name: next(each.nullable for each in columns if each.name == name)),
    }
    return json.dumps(document, separators=(",", ":"), ensure_ascii=False)


def _object(fields: tuple[tuple[str, DataType], ...], nullable: Callable[[str], bool]) -> dict[str, Any]:
    found: dict[str, Any] = {
        "type": "object",
        "properties": {name: _json_type(kind, nullable(name)) for name, kind in fields},
        "additionalProperties": False,
    }
    required = [name for name, _ in fields if not nullable(name)]
    return {**found, "required": required} if required else found


def _json_type(kind: DataType, nullable: bool) -> dict[str, Any]:
    found: dict[str, Any]
    if isinstance(kind, ListType):
        found = {"type": "array", "items": _json_type(kind.item, True)}
    elif isinstance(kind, MapType):
        found = {"type": "object", "additionalProperties": _json_type(kind.value, True)}
    elif isinstance(kind, StructType):
        found = _object(kind.fields, lambda name: True)
    else:
        found = dict(_JSON.get(kind.sql, {"type": "number"}))
    if nullable and "type" in found:
        found["type"] = [found["type"], "null"]
    return found
