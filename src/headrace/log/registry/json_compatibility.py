"""Whether documents of one JSON Schema are valid under another one, and if not, why.

Two schemas are compared keyword by keyword, as Confluent's registry does: `widened` is told what the reading
schema (new) allows less than the writing one (old). Content models decide about properties: an open one
(`additionalProperties` absent or true) says nothing about properties that it does not name, so writers may
have used any name for anything; a closed one (`false`) lets no other property pass.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from headrace.log.registry.avro_compatibility import Difference

__all__ = ["reading_problems_json"]

_COMBINED = ("allOf", "anyOf", "oneOf")
_PAIRS_MAX = 20_000
Schema = Mapping[str, Any] | bool


def reading_problems_json(
    reader: Any,
    writer: Any,
    named: Mapping[str, Any] | None = None,
    named_writer: Mapping[str, Any] | None = None,
) -> list[Difference]:
    """Return why a document that `writer` allows may be invalid under `reader`; empty when none can be.

    `named` holds the schemas that the reader's references name, `named_writer` those of the writer.
    """
    comparison = _Comparison(reader, writer, named or {}, named_writer or named or {})
    comparison.compare(reader, writer, "#")
    return comparison.found


class _Comparison:
    def __init__(
        self, reader: Any, writer: Any, named: Mapping[str, Any], named_writer: Mapping[str, Any]
    ) -> None:
        self.reader, self.writer = reader, writer
        self.named, self.named_writer = named, named_writer
        self.found: list[Difference] = []
        self.open: set[tuple[int, int]] = set()
        self.pairs = 0

    def tell(self, kind: str, path: str, text: str) -> None:
        self.found.append(Difference(kind, path, text))

    def compare(self, new: Any, old: Any, path: str) -> None:
        new, old = _resolved(new, self.reader, self.named), _resolved(old, self.writer, self.named_writer)
        pair = (id(new), id(old))
        self.pairs += 1
        if pair in self.open or _same(new, old) or _allows_all(new):
            return
        if self.pairs > _PAIRS_MAX:
            self.tell("SCHEMA_TOO_LARGE", path, "the schemas are too large to be compared")
            return
        if old is False:
            return
        if new is False:
            self.tell("SCHEMA_REMOVED", path, "nothing is valid here any more")
            return
        if old is True:
            old = {}
        self.open.add(pair)
        try:
            self._compare(new, old, path)
        finally:
            self.open.discard(pair)

    def _compare(self, new: Mapping[str, Any], old: Mapping[str, Any], path: str) -> None:
        if any(word in new for word in _COMBINED) or any(word in old for word in _COMBINED):
            self._combined(new, old, path)
        self._types(new, old, path)
        self._values(new, old, path)
        self._ranges(new, old, path)
        if {"object", "?"} & _types_of(old) and {"object", "?"} & _types_of(new) and _about_objects(new, old):
            self._objects(new, old, path)
        if {"array", "?"} & _types_of(old) and {"array", "?"} & _types_of(new):
            self._arrays(new, old, path)

    # -- types and values ----------------------------------------------------------------------------------

    def _types(self, new: Mapping[str, Any], old: Mapping[str, Any], path: str) -> None:
        wanted, written = _types_of(new), _types_of(old)
        if "?" in wanted:
            return
        missing = sorted(
            each for each in written if each not in wanted and not (each == "integer" and "number" in wanted)
        )
        if "?" in written:
            self.tell("TYPE_NARROWED", path, f"the type was any, it is {_said(wanted)}")
        elif missing and "integer" in wanted and missing == ["number"]:
            self.tell("TYPE_NARROWED", path, f"the type was {_said(written)}, it is {_said(wanted)}")
        elif missing:
            kind = "TYPE_NARROWED" if wanted & written else "TYPE_CHANGED"
            self.tell(kind, path, f"the type was {_said(written)}, it is {_said(wanted)}")

    def _values(self, new: Mapping[str, Any], old: Mapping[str, Any], path: str) -> None:
        allowed, written = _enum_of(new), _enum_of(old)
        if allowed is not None and written is None:
            self.tell("ENUM_ARRAY_ADDED", path, "the values are listed now, and were not")
        elif allowed is not None and written is not None:
            missing = [each for each in written if not any(_same(each, other) for other in allowed)]
            if missing:
                kind = "ENUM_ARRAY_NARROWED" if len(missing) < len(written) else "ENUM_ARRAY_CHANGED"
                self.tell(kind, path, f"{len(missing)} of the values that were allowed are not any more")
        if "not" in new and not _same(new["not"], old.get("not")):
            # What is excluded must not grow: the writer's exclusion has to cover the reader's.
            inner = _Comparison(self.writer, self.reader, self.named_writer, self.named)
            if "not" in old:
                inner.compare(old["not"], new["not"], path)
            if "not" not in old or inner.found:
                self.tell("NOT_TYPE_EXTENDED", f"{path}/not", "more values are excluded than before")

    def _ranges(self, new: Mapping[str, Any], old: Mapping[str, Any], path: str) -> None:
        for word, direction in _LIMITS.items():
            self._limit(word, direction, new, old, path)
        if "pattern" in new and new["pattern"] != old.get("pattern"):
            kind = "PATTERN_ADDED" if "pattern" not in old else "PATTERN_CHANGED"
            self.tell(kind, f"{path}/pattern", "the pattern is another one than before")
        step, before = new.get("multipleOf"), old.get("multipleOf")
        if step is not None and step != before and not _divides(step, before):
            kind = "MULTIPLE_OF_ADDED" if before is None else "MULTIPLE_OF_CHANGED"
            self.tell(kind, f"{path}/multipleOf", f"values have to be multiples of {step}")
        if new.get("uniqueItems") is True and old.get("uniqueItems") is not True:
            self.tell("UNIQUE_ITEMS_ADDED", f"{path}/uniqueItems", "items have to be unique now")

    def _limit(
        self, word: str, direction: int, new: Mapping[str, Any], old: Mapping[str, Any], path: str
    ) -> None:
        limit, before = new.get(word), old.get(word)
        if not _is_number(limit):
            return
        name = _spelled(word)
        if limit is None or before is None or not _is_number(before):
            if not (direction < 0 and limit == 0 and word.startswith("min") and word != "minimum"):
                self.tell(f"{name}_ADDED", f"{path}/{word}", f"{word} is {limit}, and was not there")
        elif (limit - before) * direction < 0:
            kind = f"{name}_DECREASED" if direction > 0 else f"{name}_INCREASED"
            self.tell(kind, f"{path}/{word}", f"{word} was {before}, it is {limit}")

    # -- objects -------------------------------------------------------------------------------------------

    def _objects(self, new: Mapping[str, Any], old: Mapping[str, Any], path: str) -> None:
        wanted, written = _mapping(new.get("properties")), _mapping(old.get("properties"))
        for name in written:
            place = f"{path}/properties/{name}"
            if name in wanted:
                self.compare(wanted[name], written[name], place)
            else:
                self._removed(name, written[name], new, place)
        for name in wanted:
            if name not in written:
                self._added(name, wanted[name], old, f"{path}/properties/{name}")
        self._required(new, old, path)
        self._additional(new, old, path)
        for name, needs in _mapping(new.get("dependentRequired", new.get("dependencies"))).items():
            before = _mapping(old.get("dependentRequired", old.get("dependencies"))).get(name)
            if not _same(needs, before) and not _fewer(needs, before):
                self.tell(
                    "DEPENDENCY_ADDED", f"{path}/dependencies/{name}", f"'{name}' asks for more than before"
                )

    def _removed(self, name: str, schema: Any, new: Mapping[str, Any], place: str) -> None:
        """A property is not named any more: the reader's content model says what becomes of it."""
        cover = _cover(name, new)
        if cover is True:
            return
        if cover is False:
            if schema is not False:
                self.tell("PROPERTY_REMOVED_FROM_CLOSED_CONTENT_MODEL", place,
                          f"the property '{name}' was allowed, the closed model refuses it")  # fmt: skip
            return
        inner = _Comparison(self.reader, self.writer, self.named, self.named_writer)
        inner.compare(cover, schema, place)
        if inner.found:
            self.tell("PROPERTY_REMOVED_NOT_COVERED_BY_PARTIALLY_OPEN_CONTENT_MODEL", place,
                      f"the property '{name}' does not fit what additional properties may be")  # fmt: skip

    def _added(self, name: str, schema: Any, old: Mapping[str, Any], place: str) -> None:
        """A property is named that was not: what writers may have put there, their content model says."""
        cover = _cover(name, old)
        schema = _resolved(schema, self.reader, self.named)
        if cover is False:
            return  # it cannot have been written; whether it is required is looked at apart
        if cover is True:
            if not _allows_all(schema):
                self.tell("PROPERTY_ADDED_TO_OPEN_CONTENT_MODEL", place,
                          f"the property '{name}' may have been written with any content before")  # fmt: skip
            return
        inner = _Comparison(self.reader, self.writer, self.named, self.named_writer)
        inner.compare(schema, cover, place)
        if inner.found:
            self.tell("PROPERTY_ADDED_NOT_COVERED_BY_PARTIALLY_OPEN_CONTENT_MODEL", place,
                      f"the property '{name}' may have been written as an additional one")  # fmt: skip

    def _required(self, new: Mapping[str, Any], old: Mapping[str, Any], path: str) -> None:
        before = set(_list(old.get("required")))
        properties, written = _mapping(new.get("properties")), _mapping(old.get("properties"))
        for name in _list(new.get("required")):
            if name in before:
                continue
            schema = _resolved(properties.get(name, True), self.reader, self.named)
            if isinstance(schema, Mapping) and "default" in schema:
                continue
            kind = (
                "REQUIRED_ATTRIBUTE_ADDED"
                if name in written or name not in properties
                else ("REQUIRED_PROPERTY_ADDED_TO_UNOPEN_CONTENT_MODEL")
            )
            self.tell(kind, f"{path}/required/{name}", f"'{name}' is required now, and has no default")

    def _additional(self, new: Mapping[str, Any], old: Mapping[str, Any], path: str) -> None:
        wanted, written = new.get("additionalProperties", True), old.get("additionalProperties", True)
        if wanted is True or written is False:
            return
        place = f"{path}/additionalProperties"
        if wanted is False:
            self.tell("ADDITIONAL_PROPERTIES_REMOVED", place, "properties that are not named are refused now")
            return
        inner = _Comparison(self.reader, self.writer, self.named, self.named_writer)
        inner.compare(wanted, written, place)
        if inner.found:
            self.tell("ADDITIONAL_PROPERTIES_NARROWED", place, "fewer additional properties are allowed")

    # -- arrays and combinations ---------------------------------------------------------------------------

    def _arrays(self, new: Mapping[str, Any], old: Mapping[str, Any], path: str) -> None:
        wanted, written = _tuple_of(new), _tuple_of(old)
        for at in range(max(len(wanted), len(written))):
            mine = wanted[at] if at < len(wanted) else _rest_of(new)
            theirs = written[at] if at < len(written) else _rest_of(old)
            self.compare(mine, theirs, f"{path}/items/{at}")
        mine, theirs = _rest_of(new), _rest_of(old)
        if mine is False and theirs is not False:
            self.tell("ADDITIONAL_ITEMS_REMOVED", f"{path}/additionalItems", "further items are refused now")
        else:
            self.compare(mine, theirs, f"{path}/items")

    def _combined(self, new: Mapping[str, Any], old: Mapping[str, Any], path: str) -> None:
        mine, theirs = _choices(new), _choices(old)
        if "allOf" in new:
            # Every part of the reader has to hold for all that the writer's parts together allow.
            parts = [
                *_list_of_schemas(old.get("allOf")),
                {k: v for k, v in old.items() if k not in _COMBINED},
            ]
            for at, part in enumerate(_list_of_schemas(new["allOf"])):
                if not any(self._fits(part, each) for each in (*parts, old)):
                    self.tell(
                        "PRODUCT_TYPE_EXTENDED", f"{path}/allOf/{at}", "a further condition has to hold"
                    )
        if mine is None:
            if theirs is not None and "allOf" not in new:
                bare = {k: v for k, v in new.items() if k not in _COMBINED}
                if not all(self._fits(bare, each) for each in theirs):
                    self.tell("COMBINED_TYPE_CHANGED", path, "one of the alternatives does not fit any more")
            return
        candidates = theirs if theirs is not None else [{k: v for k, v in old.items() if k != "allOf"}]
        for at, written in enumerate(candidates):
            if not any(self._fits(each, written) for each in mine):
                kind = "SUM_TYPE_NARROWED" if theirs is not None else "COMBINED_TYPE_CHANGED"
                self.tell(kind, f"{path}/{at}", "no alternative takes what was allowed before")

    def _fits(self, new: Any, old: Any) -> bool:
        inner = _Comparison(self.reader, self.writer, self.named, self.named_writer)
        inner.open, inner.pairs = set(self.open), self.pairs
        inner.compare(new, old, "")
        self.pairs = inner.pairs
        return not inner.found


# Limits, and in which direction a reader may move them: up (maxima) or down (minima).
_LIMITS = {
    **dict.fromkeys(("maxLength", "maximum", "exclusiveMaximum", "maxItems", "maxProperties"), 1),
    **dict.fromkeys(("minLength", "minimum", "exclusiveMinimum", "minItems", "minProperties"), -1),
}


def _spelled(word: str) -> str:
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", word).upper()


def _said(types: set[str]) -> str:
    return " or ".join(sorted(types))


def _resolved(schema: Any, root: Any, named: Mapping[str, Any]) -> Any:
    """Follow `$ref`: inside the document, or to a schema that is named as a reference."""
    for _ in range(50):
        if not isinstance(schema, Mapping) or not isinstance(schema.get("$ref"), str):
            return schema
        base, _, pointer = schema["$ref"].partition("#")
        document = (
            root if not base or (isinstance(root, Mapping) and base == root.get("$id")) else named.get(base)
        )
        if document is None:
            return True
        for part in pointer.split("/")[1:]:
            key = part.replace("~1", "/").replace("~0", "~")
            document = document.get(key) if isinstance(document, Mapping) else None
        schema = True if document is None else document
    return True


def _same(left: Any, right: Any) -> bool:
    return json.dumps(_told(left), sort_keys=True) == json.dumps(_told(right), sort_keys=True)


def _told(schema: Any) -> Any:
    """The schema without what only people read. References have to be followed before two are one."""
    if isinstance(schema, Mapping):
        if "$ref" in schema:
            return {"$ref": id(schema)}
        return {
            k: _told(v)
            for k, v in schema.items()
            if k not in ("title", "description", "$comment", "examples")
        }
    return [_told(each) for each in schema] if isinstance(schema, list) else schema


def _allows_all(schema: Any) -> bool:
    return schema is True or (isinstance(schema, Mapping) and not (set(schema) - _ANNOTATIONS))


_ANNOTATIONS = {
    "title",
    "description",
    "default",
    "$comment",
    "examples",
    "$id",
    "$schema",
    "definitions",
    "$defs",
}


def _types_of(schema: Mapping[str, Any]) -> set[str]:
    """Return the types that are allowed; `?` for any."""
    given = schema.get("type")
    if isinstance(given, str):
        return {given}
    if isinstance(given, list):
        return {each for each in given if isinstance(each, str)}
    if (values := _enum_of(schema)) is not None:
        return {_type_of(value) for value in values}
    if any(word in schema for word in _COMBINED):
        return {"?"}
    return {"object"} if "properties" in schema else {"?"}


def _type_of(value: Any) -> str:
    if value is None:
        return "null"
    for name, kind in (
        ("boolean", bool),
        ("integer", int),
        ("number", float),
        ("string", str),
        ("array", list),
    ):
        if isinstance(value, kind):
            return name
    return "object"


def _about_objects(*schemas: Mapping[str, Any]) -> bool:
    words = {"properties", "required", "additionalProperties", "patternProperties", "dependencies"}
    return any(words & set(schema) for schema in schemas)


def _enum_of(schema: Mapping[str, Any]) -> list[Any] | None:
    if "const" in schema:
        return [schema["const"]]
    return schema["enum"] if isinstance(schema.get("enum"), list) else None


def _cover(name: str, schema: Mapping[str, Any]) -> Any:
    """What a content model says about a property that it does not name: True, False or a schema."""
    for pattern, found in _mapping(schema.get("patternProperties")).items():
        try:
            if re.search(pattern, name):
                return found
        except re.error:
            continue
    found = schema.get("additionalProperties", True)
    return True if _allows_all(found) else found


def _tuple_of(schema: Mapping[str, Any]) -> list[Any]:
    given = schema.get("prefixItems", schema.get("items"))
    return given if isinstance(given, list) else []


def _rest_of(schema: Mapping[str, Any]) -> Any:
    if "prefixItems" in schema:
        return schema.get("items", True)
    if isinstance(schema.get("items"), list):
        return schema.get("additionalItems", True)
    return schema.get("items", True)


def _choices(schema: Mapping[str, Any]) -> list[Any] | None:
    for word in ("oneOf", "anyOf"):
        if isinstance(schema.get(word), list):
            return list(schema[word])
    return None


def _fewer(needs: Any, before: Any) -> bool:
    return isinstance(needs, list) and isinstance(before, list) and set(needs) <= set(before)


def _divides(step: Any, before: Any) -> bool:
    return _is_number(step) and _is_number(before) and step > 0 and bool(before % step == 0)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _list(value: Any) -> list[str]:
    return [each for each in value if isinstance(each, str)] if isinstance(value, list) else []


def _list_of_schemas(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list) else []
