"""Which schema can read which: Avro by its specification, JSON Schema by Confluent's table of changes."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from registry_support import field, record_schema

from headrace.log.registry.avro_compatibility import reading_problems
from headrace.log.registry.avro_schema import SchemaInvalid, canonical_avro, parse_avro, shape_of
from headrace.log.registry.contents import read_content
from headrace.log.registry.json_compatibility import reading_problems_json


def kinds(reader: Any, writer: Any) -> list[str]:
    found = reading_problems(parse_avro(json.dumps(reader)), parse_avro(json.dumps(writer)))
    return [each.kind for each in found]


def record(*fields: dict[str, Any], name: str = "R") -> dict[str, Any]:
    return record_schema(*fields, name=name)


ENUM = {"type": "enum", "name": "E", "symbols": ["A", "B"]}
FIXED = {"type": "fixed", "name": "F", "size": 4}


@pytest.mark.parametrize(
    ("reader", "writer", "expected"),
    [
        ("long", "int", []),
        ("int", "long", ["TYPE_MISMATCH"]),
        ("double", "float", []),
        ("float", "double", ["TYPE_MISMATCH"]),
        ("string", "bytes", []),
        ("bytes", "string", []),
        ("string", "int", ["TYPE_MISMATCH"]),
        (["null", "long"], "int", []),
        ("long", ["int"], []),
        ("long", ["null", "int"], ["TYPE_MISMATCH"]),
        (["null", "string"], ["null", "int"], ["MISSING_UNION_BRANCH"]),
        (["null", "string"], "int", ["MISSING_UNION_BRANCH"]),
        ({"type": "array", "items": "long"}, {"type": "array", "items": "int"}, []),
        ({"type": "map", "values": "int"}, {"type": "map", "values": "string"}, ["TYPE_MISMATCH"]),
        (ENUM, {**ENUM, "symbols": ["A"]}, []),
        (ENUM, {**ENUM, "symbols": ["A", "C"]}, ["MISSING_ENUM_SYMBOLS"]),
        ({**ENUM, "default": "A"}, {**ENUM, "symbols": ["A", "C"]}, []),
        ({**ENUM, "name": "G"}, ENUM, ["NAME_MISMATCH"]),
        ({**ENUM, "name": "G", "aliases": ["E"]}, ENUM, []),
        (FIXED, {**FIXED, "size": 5}, ["FIXED_SIZE_MISMATCH"]),
        (record(field("a", "int")), record(field("a", "int"), field("b", "int")), []),
        (record(field("b", "int")), record(field("a", "int")), ["READER_FIELD_MISSING_DEFAULT_VALUE"]),
        (record(field("b", "int", default=1)), record(field("a", "int")), []),
        (record(field("b", "int", aliases=["a"])), record(field("a", "int")), []),
        (record(field("a", "string")), record(field("a", "int")), ["TYPE_MISMATCH"]),
        (record(field("a", "int"), name="x.R"), record(field("a", "int"), name="y.R"), []),
        (record(field("n", ["null", "R"])), record(field("n", ["null", "R"])), []),
        (record(field("n", ["null", "R"]), field("x", "int")), record(field("n", ["null", "R"])),
         ["READER_FIELD_MISSING_DEFAULT_VALUE"]),
    ],
)  # fmt: skip
def test_avro_resolves_as_its_specification_says(reader: Any, writer: Any, expected: list[str]) -> None:
    found = kinds(reader, writer)
    assert found[: len(expected)] == expected and bool(found) == bool(expected)


@pytest.mark.parametrize(
    "text",
    [
        "", "{", "[]]", '"strin"', "12", '{"type": "record"}', '{"type": "record", "name": "R"}',
        '{"type": "record", "name": "1", "fields": []}',
        '{"type": "enum", "name": "E", "symbols": ["A", "A"]}',
        '{"type": "fixed", "name": "F", "size": -1}', '["int", "int"]', '["int", ["string"]]',
        '{"type": "array"}',
        '{"type": "record", "name": "R", "fields": [{"name": "a", "type": "int", "default": "x"}]}',
        '{"type": "record", "name": "R", "fields": [{"name": "a", "type": "int"}, '
        '{"name": "a", "type": "int"}]}',
        '{"type": "record", "name": "R", "fields": [{"name": "a"}]}',
        '{"type": "record", "name": "R", "fields": [{"name": "a", "type": {"type": "record", "name": "R", '
        '"fields": []}}]}',
        "[" * 3_000, '{"type": ' * 500,
    ],
)  # fmt: skip
def test_a_text_that_is_no_avro_schema_is_refused(text: str) -> None:
    with pytest.raises(SchemaInvalid):
        parse_avro(text)


def test_two_spellings_of_a_schema_are_one() -> None:
    long = '{"name": "a.R", "fields": [{"type": {"type": "int"}, "name": "x"}], "type": "record", "doc": "d"}'
    short = '{"type":"record","name":"R","namespace":"a","doc":"d","fields":[{"name":"x","type":"int"}]}'
    assert canonical_avro(long) == short
    assert read_content("AVRO", long).fingerprint == read_content("AVRO", short).fingerprint
    assert read_content("AVRO", long).guid == read_content("AVRO", short).guid


def test_a_shape_tells_what_bytes_mean_and_nothing_else() -> None:
    def shape(kind: Any, **more: Any) -> str:
        return shape_of(parse_avro(json.dumps({**record(field("a", kind)), **more})))

    money = {"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2}
    assert shape("int", doc="x") == shape("int")
    assert shape(money) != shape({**money, "scale": 3}) != shape("bytes")


STRING, NUMBER, INTEGER = {"type": "string"}, {"type": "number"}, {"type": "integer"}


def closed(required: tuple[str, ...] = (), **properties: Any) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "additionalProperties": False,
        **({"required": list(required)} if required else {}),
    }


def opened(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties}


@pytest.mark.parametrize(
    ("reader", "writer", "expected"),
    [
        (NUMBER, INTEGER, None),
        (INTEGER, NUMBER, "TYPE_NARROWED"),
        (STRING, NUMBER, "TYPE_CHANGED"),
        ({"type": ["string", "null"]}, STRING, None),
        (STRING, {"type": ["string", "null"]}, "TYPE_NARROWED"),
        ({}, STRING, None),
        (True, STRING, None),
        (STRING, {}, "TYPE_NARROWED"),
        (closed(a=STRING, b=STRING), closed(a=STRING), None),
        (closed(a=STRING), closed(a=STRING, b=STRING), "PROPERTY_REMOVED_FROM_CLOSED_CONTENT_MODEL"),
        (opened(a=STRING, b=STRING), opened(a=STRING), "PROPERTY_ADDED_TO_OPEN_CONTENT_MODEL"),
        (opened(a=STRING, b={}), opened(a=STRING), None),
        (opened(a=STRING), opened(a=STRING, b=STRING), None),
        (opened(a=STRING), closed(a=STRING), None),
        (closed(a=STRING), opened(a=STRING), "ADDITIONAL_PROPERTIES_REMOVED"),
        (closed(("a",), a=STRING), closed(a=STRING), "REQUIRED_ATTRIBUTE_ADDED"),
        (closed(("a",), a={**STRING, "default": "x"}), closed(a=STRING), None),
        (closed(a=STRING), closed(("a",), a=STRING), None),
        (closed(("b",), a=STRING, b=STRING), closed(a=STRING),
         "REQUIRED_PROPERTY_ADDED_TO_UNOPEN_CONTENT_MODEL"),
        (closed(("b",), a=STRING, b={**STRING, "default": ""}), closed(a=STRING), None),
        ({**closed(a=STRING), "additionalProperties": STRING}, closed(a=STRING, b=STRING), None),
        ({**closed(a=STRING), "additionalProperties": NUMBER}, closed(a=STRING, b=STRING),
         "PROPERTY_REMOVED_NOT_COVERED_BY_PARTIALLY_OPEN_CONTENT_MODEL"),
        (closed(a=STRING, b=STRING), {**closed(a=STRING), "additionalProperties": NUMBER},
         "PROPERTY_ADDED_NOT_COVERED_BY_PARTIALLY_OPEN_CONTENT_MODEL"),
        (closed(a=closed(b=NUMBER)), closed(a=closed(b=INTEGER)), None),
        (closed(a=closed(b=INTEGER)), closed(a=closed(b=NUMBER)), "TYPE_NARROWED"),
        ({**STRING, "maxLength": 9}, {**STRING, "maxLength": 5}, None),
        ({**STRING, "maxLength": 5}, {**STRING, "maxLength": 9}, "MAX_LENGTH_DECREASED"),
        ({**STRING, "maxLength": 5}, STRING, "MAX_LENGTH_ADDED"),
        (STRING, {**STRING, "maxLength": 5}, None),
        ({**STRING, "minLength": 5}, {**STRING, "minLength": 3}, "MIN_LENGTH_INCREASED"),
        ({**NUMBER, "minimum": 0}, {**NUMBER, "minimum": 1}, None),
        ({**NUMBER, "minimum": 0}, NUMBER, "MINIMUM_ADDED"),
        ({**NUMBER, "exclusiveMaximum": 5}, {**NUMBER, "exclusiveMaximum": 6}, "EXCLUSIVE_MAXIMUM_DECREASED"),
        ({**NUMBER, "multipleOf": 2}, {**NUMBER, "multipleOf": 4}, None),
        ({**NUMBER, "multipleOf": 4}, {**NUMBER, "multipleOf": 2}, "MULTIPLE_OF_CHANGED"),
        ({**STRING, "pattern": "a"}, STRING, "PATTERN_ADDED"),
        (STRING, {**STRING, "pattern": "a"}, None),
        ({"enum": ["a", "b"]}, {"enum": ["a"]}, None),
        ({"enum": ["a"]}, {"enum": ["a", "b"]}, "ENUM_ARRAY_NARROWED"),
        ({**STRING, "enum": ["a"]}, STRING, "ENUM_ARRAY_ADDED"),
        (STRING, {**STRING, "enum": ["a"]}, None),
        ({"type": "array", "items": NUMBER}, {"type": "array", "items": INTEGER}, None),
        ({"type": "array", "items": INTEGER}, {"type": "array", "items": NUMBER}, "TYPE_NARROWED"),
        ({"type": "array", "uniqueItems": True}, {"type": "array"}, "UNIQUE_ITEMS_ADDED"),
        ({"oneOf": [STRING, NUMBER]}, {"oneOf": [STRING]}, None),
        ({"oneOf": [STRING]}, {"oneOf": [STRING, NUMBER]}, "SUM_TYPE_NARROWED"),
        ({"oneOf": [STRING, NUMBER]}, STRING, None),
        ({"$ref": "#/definitions/a", "definitions": {"a": NUMBER}}, INTEGER, None),
        ({"$ref": "#/definitions/a", "definitions": {"a": INTEGER}}, NUMBER, "TYPE_NARROWED"),
        ({**STRING, "title": "x", "description": "y"}, STRING, None),
    ],
)  # fmt: skip
def test_json_schemas_are_compared_as_confluent_documents_it(
    reader: Any, writer: Any, expected: str | None
) -> None:
    found = [each.kind for each in reading_problems_json(reader, writer)]
    assert (expected in found) if expected else not found


def test_a_json_schema_that_holds_itself_is_compared() -> None:
    def tree(kind: Any) -> dict[str, Any]:
        return {
            "$ref": "#/definitions/node",
            "definitions": {
                "node": closed(
                    value=kind, children={"type": "array", "items": {"$ref": "#/definitions/node"}}
                )
            },
        }

    assert not reading_problems_json(tree(NUMBER), tree(INTEGER))
    assert reading_problems_json(tree(INTEGER), tree(NUMBER))


leaves = st.sampled_from(
    [{"type": "string"}, {"type": "integer"}, {"type": "number"}, {"enum": ["a", 1]}, {}, True]
)
json_schemas = st.recursive(
    leaves,
    lambda inner: (
        st.builds(lambda a, b: closed(a=a, b=b), inner, inner)
        | st.builds(lambda a: opened(a=a), inner)
        | st.builds(lambda a: {"type": "array", "items": a}, inner)
        | st.builds(lambda a, b: {"anyOf": [a, b]}, inner, inner)
    ),
    max_leaves=6,
)
avro_types = st.recursive(
    st.sampled_from(["int", "long", "string", "bytes", "double", "null", ENUM]),
    lambda inner: (
        st.builds(lambda a: {"type": "array", "items": a}, inner)
        | st.builds(lambda a: record(field("a", a), field("b", "int", default=1)), inner)
    ),
    max_leaves=1,
)


@settings(max_examples=200, deadline=None)
@given(json_schemas)
def test_every_json_schema_reads_what_it_wrote(schema: Any) -> None:
    assert not reading_problems_json(schema, json.loads(json.dumps(schema)))


@settings(max_examples=100, deadline=None)
@given(avro_types)
def test_every_avro_schema_reads_what_it_wrote(schema: Any) -> None:
    assert kinds(schema, schema) == []


documents = st.recursive(
    st.sampled_from(["a", "z", 1, 1.5, None, True]),
    lambda inner: (
        st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["a", "b", "c"]), inner, max_size=2)
    ),
    max_leaves=4,
)


@settings(max_examples=400, deadline=None)
@given(json_schemas, json_schemas, documents)
def test_what_is_called_compatible_really_reads(reader: Any, writer: Any, document: Any) -> None:
    import jsonschema

    if reading_problems_json(reader, writer):
        return
    if jsonschema.Draft7Validator(writer).is_valid(document):
        assert jsonschema.Draft7Validator(reader).is_valid(document)
