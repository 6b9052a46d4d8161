"""Reads a schema from a pydantic model.

A model is read for its fields and their types. Its validators are not run: a record is decoded by the engine,
and what it has to meet is said with `expect`.
"""

from __future__ import annotations

import types
import uuid
from collections.abc import Mapping
from collections.abc import Sequence as SequenceABC
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from headrace.declare.schema import Column, DataType, ListType, MapType, ScalarType, Schema, StructType

__all__ = ["model_schema"]

_SCALARS: dict[type, str] = {
    str: "VARCHAR",
    bool: "BOOLEAN",
    int: "BIGINT",
    float: "DOUBLE",
    datetime: "TIMESTAMP WITH TIME ZONE",
    date: "DATE",
    time: "TIME",
    uuid.UUID: "UUID",
}
_INSTANTS = ("AwareDatetime", "NaiveDatetime", "PastDatetime", "FutureDatetime")  # pydantic's; not datetimes
_REFUSED: dict[object, str] = {
    bytes: "bytes have no form in JSON; write str for text in base64",
    timedelta: "an interval has no fixed form in JSON; write float for seconds",
    set: "a set has no order and no form in JSON; write list[...]",
    frozenset: "a set has no order and no form in JSON; write list[...]",
    tuple: "write list[...], or a nested model",
    Any: "say which type it is; write a nested model, or declare the schema as SQL with the type JSON",
    object: "say which type it is; write a nested model, or declare the schema as SQL with the type JSON",
}


class _Unreadable(Exception):
    pass


def model_schema(model: type) -> tuple[Schema, tuple[str, ...]]:
    """Return the columns of a pydantic model, and a sentence for each field that has no SQL type."""
    from pydantic import BaseModel

    if not issubclass(model, BaseModel):
        return Schema(()), (
            f"{model.__name__} is not a pydantic model: let it inherit from pydantic.BaseModel",
        )
    columns, mistakes = [], []
    for name, field in model.model_fields.items():
        where = f"{model.__name__}.{name}"
        try:
            kind, optional = _type_of(field.annotation, field.metadata, where, (model,))
            columns.append(
                Column(_json_name(name, field), kind, nullable=optional or not field.is_required())
            )
        except _Unreadable as error:
            mistakes.append(str(error))
    if not columns and not mistakes:
        mistakes.append(f"{model.__name__} has no fields")
    return Schema(tuple(columns)), tuple(mistakes)


def _json_name(name: str, field: Any) -> str:
    """Return the name under which the field stands in a record."""
    alias = field.validation_alias if isinstance(field.validation_alias, str) else None
    return alias or field.alias or name


def _type_of(
    annotation: Any, metadata: SequenceABC[Any], where: str, outer: tuple[type, ...]
) -> tuple[DataType, bool]:
    """Return the SQL type of an annotation, and whether it may be None. `outer` are the models around it."""
    from pydantic import BaseModel

    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _type_of(arguments[0], (*metadata, *arguments[1:]), where, outer)
    if origin in (Union, types.UnionType):
        return _union(arguments, metadata, where, outer)
    if origin is Literal:
        return _literal(arguments, where), None in arguments
    if origin in (list, SequenceABC) and arguments:
        return ListType(_type_of(arguments[0], (), f"{where}[]", outer)[0]), False
    if origin in (dict, Mapping) and arguments:
        return _map(arguments, where, outer), False
    if isinstance(annotation, type):
        if issubclass(annotation, BaseModel):
            return _struct(annotation, where, outer), False
        if issubclass(annotation, Enum):
            return _literal(tuple(member.value for member in annotation), where), False
        if issubclass(annotation, Decimal):
            return _decimal(metadata, where), False
    return ScalarType(_scalar(annotation, where)), False


def _scalar(annotation: Any, where: str) -> str:
    if isinstance(annotation, type):
        # bool before int and datetime before date: each is also a subclass of the other.
        for known in (bool, datetime, *_SCALARS):
            if issubclass(annotation, known):
                return _SCALARS[known]
    name = getattr(annotation, "__name__", str(annotation))
    if name in _INSTANTS:
        return _SCALARS[datetime]
    plain = get_origin(annotation) or annotation
    reason = _REFUSED.get(plain) if isinstance(plain, type) or plain is Any else None
    if plain in (list, SequenceABC, dict, Mapping):
        reason = f"say of what; write {plain.__name__}[{'str, ' if plain in (dict, Mapping) else ''}str]"
    raise _Unreadable(
        f"field {where}: the type {name} cannot be used; {reason or 'declare the schema as SQL instead'}"
    )


def _union(
    arguments: tuple[Any, ...], metadata: SequenceABC[Any], where: str, outer: tuple[type, ...]
) -> tuple[DataType, bool]:
    optional = type(None) in arguments
    members = [_type_of(a, metadata, where, outer) for a in arguments if a is not type(None)]
    kinds = {kind for kind, _ in members}
    if len(kinds) != 1:
        raise _Unreadable(
            f"field {where}: it may be of several types; write one, or declare the schema as SQL with JSON"
        )
    return kinds.pop(), optional or any(may_be_none for _, may_be_none in members)


def _literal(values: tuple[Any, ...], where: str) -> DataType:
    kinds = {type(value) for value in values if value is not None}
    if len(kinds) != 1 or not kinds <= {str, int, bool}:
        raise _Unreadable(f"field {where}: its values have to be all strings or all whole numbers")
    return ScalarType(_SCALARS[kinds.pop()])


def _map(arguments: tuple[Any, ...], where: str, outer: tuple[type, ...]) -> DataType:
    key, _ = _type_of(arguments[0], (), f"{where} key", outer)
    if not isinstance(key, ScalarType):
        raise _Unreadable(f"field {where}: the keys of a dict have to be of a plain type, for example str")
    return MapType(key, _type_of(arguments[1], (), f"{where} value", outer)[0])


def _struct(model: Any, where: str, outer: tuple[type, ...]) -> DataType:
    if model in outer:
        raise _Unreadable(f"field {where}: {model.__name__} contains itself, so its columns have no end")
    fields = tuple(
        (
            _json_name(name, field),
            _type_of(field.annotation, field.metadata, f"{where}.{name}", (*outer, model))[0],
        )
        for name, field in model.model_fields.items()
    )
    if not fields:
        raise _Unreadable(f"field {where}: {model.__name__} has no fields")
    return StructType(fields)


def _decimal(metadata: SequenceABC[Any], where: str) -> DataType:
    """Return DECIMAL(max_digits, decimal_places); pydantic keeps both in the field's metadata."""
    digits = places = None
    parts = (part for entry in metadata for part in (entry, *getattr(entry, "metadata", ())))
    for entry in parts:
        digits = getattr(entry, "max_digits", None) or digits
        found = getattr(entry, "decimal_places", None)
        places = places if found is None else found
    if digits is None and places is None:
        return ScalarType("DECIMAL(18,3)")
    digits = 38 if digits is None else digits
    places = 0 if places is None else places
    if not (1 <= digits <= 38 and 0 <= places <= digits):
        raise _Unreadable(f"field {where}: a DECIMAL has 1 to 38 digits, not {digits} with {places} places")
    return ScalarType(f"DECIMAL({digits},{places})")
