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

pytestmark = pytest.mark.slow

ENUM = {"type": "enum", "name": "E", "symbols": ["A", "B", "C"]}


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
]  # fmt: skip

integers = {"int": (-(2**31), 2**31 - 1), "long": (-(2**63), 2**63 - 1)}
letters = st.text(st.sampled_from('ab"\\\nü\u0001日'), max_size=5)


def values_of(kind: Any) -> st.SearchStrategy[Any]:
    """Stored values, as fastavro writes them under the plain schema."""
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
        kind = {**base, "name": f"{base['name']}{at}"} if isinstance(base, dict) and "name" in base else base
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


@settings(max_examples=400, deadline=None)
@given(slices())
def test_both_ways_to_read_a_record_say_the_same(case: tuple[AvroType, str, list[bytes]]) -> None:
    writer, columns, values = case
    decode = _AvroDecode(writer, stream_of(columns), None)
    exact = [said(decode, value) for value in values]
    assert decode.columns is not None
    ends = np.cumsum([len(value) for value in values]).astype(np.int64)
    starts = np.concatenate([[0], ends[:-1]]).astype(np.int64)
    texts, odd = decode.columns.texts(np.frombuffer(b"".join(values), np.uint8), starts, ends)
    for text, left, expected in zip(texts.to_pylist(), odd.tolist(), exact, strict=True):
        assert left or text == expected


def test_plain_records_are_not_left_to_the_slower_ways() -> None:
    kinds = [(kind, sql) for kind, sql in KINDS if not (isinstance(kind, dict) and "name" in kind)]
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


NOT_TOGETHER = [{"type": "array", "items": "int"}, {"type": "map", "values": "int"}, ["int", "string"]]


@pytest.mark.parametrize("kind", NOT_TOGETHER)
def test_what_is_not_read_together_is_known_beforehand(kind: Any) -> None:
    writer = parse_avro(json.dumps(record_schema(field("a", "int"), field("b", kind))))
    assert ColumnReader.of(writer, stream_of("a INT").schema.columns, None) is None
