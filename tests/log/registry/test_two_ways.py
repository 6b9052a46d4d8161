"""Records of one schema are read together, field by field, and singly: both ways say the same."""

from __future__ import annotations

import io
import json
from typing import Any

import fastavro
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from registry_support import field, record_schema
from test_avro_records import stream_of

from headrace.log.registry.avro_columns import ColumnReader
from headrace.log.registry.avro_schema import AvroType, parse_avro
from headrace.log.registry.framing import _AvroDecode, plain_schema
from headrace.log.registry.wire import Unreadable

pytestmark = [pytest.mark.slow, pytest.mark.untraced]

ENUM = {"type": "enum", "name": "E", "symbols": ["A", "B", "C"]}
PAIR = {
    "type": "record",
    "name": "P",
    "fields": [{"name": "a", "type": ["null", "int"]}, {"name": "b", "type": "string"}],
}


def logical(kind: str, word: str, **more: Any) -> dict[str, Any]:
    return {"type": kind, "logicalType": word, **more}


KINDS: list[tuple[Any, str]] = [
    ("boolean", "BOOLEAN"), ("int", "INT"), ("long", "BIGINT"), ("float", "FLOAT"), ("double", "DOUBLE"),
    ("string", "VARCHAR"), (ENUM, "VARCHAR"), ("null", "VARCHAR"), ("bytes", ""), ("long", "TIMESTAMP"),
    ({"type": "fixed", "name": "F", "size": 3}, ""), (logical("int", "date"), "DATE"), ("string", ""),
    (logical("long", "timestamp-millis"), "TIMESTAMP"), (logical("long", "timestamp-micros"), "TIMESTAMP"),
    (logical("long", "local-timestamp-micros"), "TIMESTAMP"), (logical("long", "timestamp-micros"), "BIGINT"),
    (logical("int", "time-millis"), "TIME"), (logical("long", "time-micros"), "TIME"),
    (logical("bytes", "decimal", precision=12, scale=2), "DECIMAL(12,2)"),
    (logical("string", "uuid"), "UUID"), ("int", ""),
    (logical("bytes", "decimal", precision=30, scale=0), "DECIMAL(30,0)"),
    (PAIR, "STRUCT(b VARCHAR, a INT, gone VARCHAR)"), (PAIR, "JSON"), (PAIR, ""),
    (PAIR, "MAP(VARCHAR, VARCHAR)"), ({"type": "array", "items": "long"}, "BIGINT[]"),
    ({"type": "array", "items": ["null", "string"]}, "JSON"),
    ({"type": "array", "items": ["null", PAIR]}, "STRUCT(a INT, b VARCHAR)[]"),
    ({"type": "array", "items": PAIR}, ""),
]  # fmt: skip

integers = {"int": (-(2**31), 2**31 - 1), "long": (-(2**63), 2**63 - 1)}
letters = st.text(st.sampled_from('ab"\\\nü\u0001日'), max_size=5)


def named(kind: Any, at: int) -> Any:
    """The type with names of its own: a schema may not say what a name means twice."""
    if isinstance(kind, list):
        return [named(each, at) for each in kind]
    if not isinstance(kind, dict):
        return kind
    inner = {"items": named(kind["items"], at)} if "items" in kind else {}
    return {**kind, **inner, **({"name": f"{kind['name']}{at}"} if "name" in kind else {})}


def values_of(kind: Any) -> st.SearchStrategy[Any]:
    """Stored values, as fastavro writes them under the plain schema."""
    if isinstance(kind, list):
        return st.none() | values_of(kind[1])
    if isinstance(kind, dict) and kind["type"] == "array":
        return st.lists(values_of(kind["items"]), max_size=4)
    if isinstance(kind, dict) and kind["type"] == "record":
        return st.fixed_dictionaries({each["name"]: values_of(each["type"]) for each in kind["fields"]})
    name = kind if isinstance(kind, str) else kind["type"]
    if name in integers:
        low, high = integers[name]
        usual = st.integers(0, 86_399_999) | st.integers(1_700_000_000_000_000, 1_800_000_000_000_000)
        return (usual if name == "long" else st.integers(0, 30_000)) | st.integers(low, high)
    return {
        "boolean": st.booleans(),
        "float": st.floats(width=32),
        "double": st.floats(),
        "string": letters,
        "bytes": st.binary(max_size=20) if isinstance(kind, dict) else st.binary(max_size=3),
        "fixed": st.binary(min_size=3, max_size=3),
        "enum": st.sampled_from(["A", "B", "C"]),
        "null": st.none(),
    }[name]


@st.composite
def slices(draw: st.DrawFn) -> tuple[AvroType, str, list[bytes]]:
    """A schema, the declared columns, and records, some of them spoilt."""
    chosen = draw(st.lists(st.sampled_from(KINDS), min_size=1, max_size=5))
    fields, columns, makers = [], ["missing VARCHAR"], {}
    for at, (base, sql) in enumerate(chosen):
        kind = named(base, at)
        maker = values_of(kind)
        form = draw(st.sampled_from(["plain", "null first", "null last", "alone"]))
        if form != "plain" and kind != "null":
            maker = maker if form == "alone" else st.none() | maker
        unions = {"null first": ["null", kind], "null last": [kind, "null"], "alone": [kind]}
        fields.append(field(f"f{at}", kind if kind == "null" else unions.get(form, kind)))
        makers[f"f{at}"] = maker
        if sql:
            columns.append(f"f{at} {sql}")
    writer = parse_avro(json.dumps(record_schema(*fields)))
    stored = fastavro.parse_schema(plain_schema(writer))
    found = []
    for row in draw(st.lists(st.fixed_dictionaries(makers), min_size=1, max_size=6)):
        sink = io.BytesIO()
        fastavro.schemaless_writer(sink, stored, row)
        value = sink.getvalue()
        if draw(st.integers(0, 3)) == 0:
            at, byte = draw(st.integers(0, max(len(value) - 1, 0))), draw(st.integers(0, 255))
            spoilt = (value[:at], value + b"\x00", value[:at] + bytes([byte]) + value[at + 1 :])
            value = draw(st.sampled_from(spoilt))
        found.append(value)
    return writer, ", ".join(columns), found


def said(read: Any, value: bytes) -> Any:
    try:
        return read(value, 0)
    except Unreadable as problem:
        return problem.rule, problem.reason


def check(case: tuple[AvroType, str, list[bytes]]) -> None:
    writer, columns, values = case
    decode = _AvroDecode(writer, stream_of(columns), None)
    exact = [said(decode, value) for value in values]
    assert decode.columns is not None
    ends = np.cumsum([len(value) for value in values]).astype(np.int64)
    starts = np.concatenate([[0], ends[:-1]]).astype(np.int64)
    texts, odd = decode.columns.texts(np.frombuffer(b"".join(values), np.uint8), starts, ends)
    for text, left, expected in zip(texts.to_pylist(), odd.tolist(), exact, strict=True):
        assert left or text == expected


@settings(max_examples=150, deadline=None)
@given(slices())
def test_both_ways_to_read_a_record_say_the_same(case: tuple[AvroType, str, list[bytes]]) -> None:
    check(case)


@pytest.mark.soak
@settings(max_examples=10_000, deadline=None)
@given(slices())
def test_both_ways_to_read_thousands_of_records_say_the_same(
    case: tuple[AvroType, str, list[bytes]],
) -> None:
    check(case)


def test_plain_records_are_not_left_to_the_slower_ways() -> None:
    kinds = [(named(kind, at), sql) for at, (kind, sql) in enumerate(KINDS)]
    fields = [
        field(f"f{at}", kind if kind == "null" else ["null", kind]) for at, (kind, _) in enumerate(kinds)
    ]
    columns = ", ".join(f"f{at} {sql}" for at, (_, sql) in enumerate(kinds) if sql)
    writer = parse_avro(json.dumps(record_schema(*fields)))
    reader = ColumnReader.of(writer, stream_of(columns).schema.columns, None)
    assert reader is not None
    sink = io.BytesIO()
    fastavro.schemaless_writer(sink, fastavro.parse_schema(plain_schema(writer)), {})
    data = np.frombuffer(sink.getvalue() * 50, np.uint8)
    ends = np.arange(1, 51, dtype=np.int64) * (len(data) // 50)
    _, odd = reader.texts(data, ends - len(data) // 50, ends)
    assert not odd.any()


def test_long_lists_lists_in_blocks_and_lists_without_an_end_are_read_or_left() -> None:
    writer = parse_avro(json.dumps(record_schema(field("a", {"type": "array", "items": "int"}))))
    decode = _AvroDecode(writer, stream_of("a INT[]"), None)
    assert decode.columns is not None
    blocks = b"\x04\x02\x04" + b"\x03\x04\x06\x08" + b"\x00"  # two items, then two with their size, the end
    long = b"\xc8\x01" + b"\x02" * 100 + b"\x00"
    values = [
        blocks,
        b"\x00",
        long,
        b"\xfe\xff\xff\xff\x0f" + b"\x02" * 9,
        b"\x02",
        b"\xff" * 9 + b"\x01\x00\x00",
    ]
    ends = np.cumsum([len(value) for value in values]).astype(np.int64)
    starts = np.concatenate([[0], ends[:-1]]).astype(np.int64)
    texts, odd = decode.columns.texts(np.frombuffer(b"".join(values), np.uint8), starts, ends)
    assert odd.tolist() == [False, False, True, True, True, True]
    assert texts.to_pylist()[:2] == ['{"a":[1,2,3,4]}', '{"a":[]}']
    assert decode(blocks, 0) == '{"a":[1,2,3,4]}'


NESTED = {"type": "array", "items": {"type": "array", "items": "int"}}
NOT_TOGETHER = [
    *(NESTED, {"type": "array", "items": "null"}, {"type": "map", "values": "int"}, ["int", "string"]),
    {"type": "record", "name": "R", "fields": [{"name": "next", "type": ["null", "R"]}]},
]


@pytest.mark.parametrize("kind", NOT_TOGETHER)
def test_what_is_not_read_together_is_known_beforehand(kind: Any) -> None:
    writer = parse_avro(json.dumps(record_schema(field("a", "int"), field("b", kind))))
    assert ColumnReader.of(writer, stream_of("a INT").schema.columns, None) is None
