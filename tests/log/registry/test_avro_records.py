"""Avro records become the JSON text of the declared columns, or are set aside with the reason."""

from __future__ import annotations

import json
import pickle
import uuid
from collections.abc import Iterable
from contextlib import closing
from datetime import UTC, date, datetime, time
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest
from registry_support import encoded, field, record_schema

from headrace.declare import Pipeline, Stream
from headrace.log.protocol import RECORD_SCHEMA
from headrace.log.registry.client import RegistryClient
from headrace.log.registry.framing import RegistryFraming, StreamFormat
from headrace.log.registry.wire import SCHEMA_HEADER, frame

LARGE = Decimal("-12345678901234567890.50")
HEADERS = RECORD_SCHEMA.field("headers").type


def stream_of(schema: str, contract: str = "evolve") -> Stream:
    pipeline = Pipeline("p")
    pipeline.stream("events", schema=schema, contract=contract)
    assert not pipeline.problems
    return pipeline.streams[0]


def table_of(values: Iterable[bytes | None], headers: Any = None) -> pa.Table:
    kept = list(values)
    count = len(kept)
    times = pa.array([datetime(2026, 3, 1, tzinfo=UTC)] * count, pa.timestamp("us", "UTC"))
    columns = [pa.array([0] * count, pa.int32()), pa.array(range(count), pa.int64()), times]
    columns += [pa.nulls(count, pa.binary()), pa.array(kept, pa.binary())]
    return pa.table([*columns, pa.array(headers or [None] * count, HEADERS)], schema=RECORD_SCHEMA)


class Reading:
    """A stream's framing over a registry, and what it says of single records."""

    def __init__(
        self, client: RegistryClient, columns: str, contract: str = "evolve", schema: Any = None
    ) -> None:
        self.client = client
        text = None if schema is None else json.dumps(schema)
        form = StreamFormat(stream_of(columns, contract), "avro", "events-value", text)
        self.framing = RegistryFraming(client, form)

    def written(self, schema: dict[str, Any], value: Any) -> bytes:
        number = self.client.register(f"any-{uuid.uuid4()}", "AVRO", json.dumps(schema))
        return frame(number, encoded(schema, value))

    def documents(self, *values: bytes | None, headers: Any = None) -> list[Any]:
        """What each record says: a dict, or its (rule, reason)."""
        table = table_of(values, headers)
        found = self.framing.documents(table)
        # Among many of their kind records are read together, which may change nothing.
        many = self.framing.documents(pa.concat_tables([table] * 250))
        assert many.texts.to_pylist() == found.texts.to_pylist() * 250
        assert [many.unreadable[row] for row in sorted(many.unreadable)] == [
            found.unreadable[row] for row in sorted(found.unreadable)
        ] * 250
        texts = found.texts.to_pylist()
        return [
            found.unreadable[row][0] if row in found.unreadable else _parsed(text)
            for row, text in enumerate(texts)
        ]

    def of(self, schema: dict[str, Any], value: Any) -> Any:
        (found,) = self.documents(self.written(schema, value))
        return found


def _parsed(text: bytes | None) -> Any:
    return None if text is None else json.loads(text, parse_float=Decimal)


def logical(kind: str, word: str, **more: Any) -> dict[str, Any]:
    return {"type": kind, "logicalType": word, **more}


def test_every_type_of_avro_has_a_text(client: RegistryClient) -> None:
    noon = datetime(2026, 3, 1, 12, 0, 0, 123456, tzinfo=UTC)
    key = uuid.UUID("0f3e4567-e89b-12d3-a456-426614174000")
    fields = [
        (field("b", "boolean"), True, "BOOLEAN", True),
        (field("i", "int"), -7, "INT", -7),
        (field("l", "long"), 2**62, "BIGINT", 2**62),
        (field("f", "float"), 0.5, "FLOAT", Decimal("0.5")),
        (field("d", "double"), 1.25, "DOUBLE", Decimal("1.25")),
        (field("s", "string"), 'quo"te ü \n', "VARCHAR", 'quo"te ü \n'),
        (field("raw", "bytes"), b"\x00\xff", "BLOB", "AP8="),
        (field("txt", "bytes"), "ü".encode(), "VARCHAR", "ü"),
        (field("money", logical("bytes", "decimal", precision=38, scale=2)), LARGE, "DECIMAL(38,2)", LARGE),
        (field("cents", logical("bytes", "decimal", precision=4, scale=3)), Decimal("0.007"), "DECIMAL(4,3)",
         Decimal("0.007")),
        (field("day", logical("int", "date")), date(1969, 12, 31), "DATE", "1969-12-31"),
        (field("ms", logical("long", "timestamp-millis")), noon, "TIMESTAMP", "2026-03-01T12:00:00.123Z"),
        (field("us", logical("long", "timestamp-micros")), noon, "TIMESTAMP", "2026-03-01T12:00:00.123456Z"),
        (field("ns", logical("long", "timestamp-nanos")), 1_000_000_001, "TIMESTAMP",
         "1970-01-01T00:00:01.000000001Z"),
        (field("old", logical("long", "timestamp-micros")), datetime(1912, 6, 23, 1, tzinfo=UTC),
         "TIMESTAMP", "1912-06-23T01:00:00.000000Z"),
        (field("epoch", logical("long", "timestamp-millis")), noon, "BIGINT", 1772366400123),
        (field("tod", logical("int", "time-millis")), time(1, 2, 3, 4000), "TIME", "01:02:03.004"),
        (field("u", logical("string", "uuid")), key, "UUID", str(key)),
        (field("list", {"type": "array", "items": "int"}), [1, 2], "INT[]", [1, 2]),
        (field("map", {"type": "map", "values": "long"}), {"a": 1}, "MAP(VARCHAR, BIGINT)", {"a": 1}),
        (field("enum", {"type": "enum", "name": "E", "symbols": ["A", "B"]}), "B", "VARCHAR", "B"),
        (field("fix", {"type": "fixed", "name": "F", "size": 2}), b"\x01\x02", "BLOB", "AQI="),
        (field("inner", record_schema(field("x", "int"), field("y", "int"), name="I")), {"x": 1, "y": 2},
         "STRUCT(y INT)", {"y": 2}),
        (field("any", record_schema(field("x", "int"), name="J")), {"x": 1}, "JSON", {"x": 1}),
        (field("none", ["null", "string"]), None, "VARCHAR", None),
        (field("some", ["null", "string"]), "x", "VARCHAR", "x"),
        (field("one", ["int", "string", "double"]), "x", "VARCHAR", "x"),
        (field("two", ["int", logical("long", "timestamp-millis")]), noon, "TIMESTAMP",
         "2026-03-01T12:00:00.123Z"),
    ]  # fmt: skip
    columns = ", ".join(f"{each['name']} {sql}" for each, _, sql, _ in fields)
    # Together they go the exact way, because of the unions; each for itself goes the fast way where it can.
    whole = record_schema(*(each for each, _, _, _ in fields))
    values = {each["name"]: value for each, value, _, _ in fields}
    expected = {each["name"]: said for each, _, _, said in fields}
    assert Reading(client, columns).of(whole, values) == expected
    for each, value, sql, said in fields:
        name = each["name"]
        assert Reading(client, f"{name} {sql}").of(record_schema(each), {name: value}) == {name: said}, name


def test_a_declared_column_takes_what_the_writer_has_of_it(client: RegistryClient) -> None:
    reading = Reading(client, "id VARCHAR NOT NULL, amount DOUBLE, extra VARCHAR")
    narrow = record_schema(field("id", "string"), field("amount", "int"))
    wide = record_schema(field("amount", "double"), field("id", "string"), field("unknown", "string"))
    assert reading.of(narrow, {"id": "a", "amount": 3}) == {"id": "a", "amount": 3}
    assert reading.of(wide, {"id": "b", "amount": 0.5, "unknown": "x"}) == {
        "id": "b",
        "amount": Decimal("0.5"),
    }


def test_a_schema_of_ones_own_resolves_aliases_defaults_and_symbols(client: RegistryClient) -> None:
    own = record_schema(
        field("id", "string"),
        field("total", "double", aliases=["amount"]),
        field("device", ["null", "string"], default=None),
        field(
            "kind", {"type": "enum", "name": "K", "symbols": ["A", "OTHER"], "default": "OTHER"}, default="A"
        ),
        field("raw", "bytes", default="\u00ff"),
        field("tags", {"type": "array", "items": "string"}, default=["x"]),
    )
    reading = Reading(
        client, "id VARCHAR, total DOUBLE, device VARCHAR, kind VARCHAR, raw BLOB, tags VARCHAR[]", schema=own
    )
    old = record_schema(
        field("id", "string"),
        field("amount", "int"),
        field("kind", {"type": "enum", "name": "K", "symbols": ["A", "B"]}),
    )
    assert reading.of(old, {"id": "a", "amount": 3, "kind": "B"}) == {
        "id": "a", "total": 3, "device": None, "kind": "OTHER", "raw": "/w==", "tags": ["x"],
    }  # fmt: skip
    rule, reason = reading.of(record_schema(field("id", "string")), {"id": "a"})
    assert rule == "schema" and "'total' has no default" in reason


def test_a_declared_column_that_ones_own_schema_leaves_out_is_not_taken(client: RegistryClient) -> None:
    reading = Reading(client, "id VARCHAR, extra VARCHAR", schema=record_schema(field("id", "string")))
    writer = record_schema(field("id", "string"), field("extra", "string"))
    assert reading.of(writer, {"id": "a", "extra": "x"}) == {"id": "a"}


def test_a_recursive_schema_is_read_and_a_deep_record_set_aside(client: RegistryClient) -> None:
    schema = record_schema(field("id", "string"), field("next", ["null", "Event"]))
    reading = Reading(client, "id VARCHAR, next JSON")
    two = {"id": "a", "next": {"id": "b", "next": None}}
    assert reading.of(schema, two) == two
    deep: Any = None
    for _ in range(60):
        deep = {"id": "x", "next": deep}
    assert reading.of(schema, deep)["id"] == "x"
    head = reading.written(schema, {"id": "a", "next": None})[:5]
    # A record of some kilobytes that would end a process whose reader recurses without a limit.
    bottomless = head + b"\x02a\x02" * 100_000 + b"\x02a\x00"
    assert reading.documents(bottomless) == [("avro", "nested deeper than 64 levels")]


@pytest.mark.parametrize(
    ("spoil", "rule", "reason"),
    [
        (lambda value: b"", "framing", "the value is empty"),
        (lambda value: value[:3], "framing", "3 bytes, too few for the 5 that name a schema"),
        (lambda value: b"\x07" + value[1:], "framing", "the first byte is 7, not 0 or 1"),
        (lambda value: b'{"id": "a"}', "framing", "it may be JSON without a schema"),
        (lambda value: frame(99_999, value[5:]), "schema", "schema 99999 is not in the registry"),
        (lambda value: value[:-1], "avro", "cut off"),
        (lambda value: value + b"\x00", "avro", "1 bytes are left over behind the record"),
        (lambda value: value[:5] + b"\x01" + value[6:], "avro", "a negative length"),
        (lambda value: value[:6] + b"\xff" + value[7:], "avro", "is not UTF-8"),
        (lambda value: value[:5] + b"\xff" * 12, "avro", "a number without an end"),
    ],
)  # fmt: skip
def test_a_record_that_cannot_be_read_says_why(
    client: RegistryClient, spoil: Any, rule: str, reason: str
) -> None:
    reading = Reading(client, "id VARCHAR, n INT")
    good = reading.written(record_schema(field("id", "string"), field("n", "int")), {"id": "a", "n": 1})
    first, second, third = reading.documents(good, spoil(good), good)
    assert first == third == {"id": "a", "n": 1}
    assert second[0] == rule and reason in second[1]


def test_lists_of_nothing_cannot_fill_the_memory(client: RegistryClient) -> None:
    schema = record_schema(field("xs", {"type": "array", "items": "null"}))
    reading = Reading(client, "xs JSON")
    assert reading.of(schema, {"xs": [None, None]}) == {"xs": [None, None]}
    head = reading.written(schema, {"xs": []})[:5]
    assert reading.documents(head + b"\xfe\xff\xff\xff\xff\xff\xff\xff\x7f\x00")[0][0] == "avro"


def test_a_schema_of_another_kind_is_named(client: RegistryClient) -> None:
    number = client.register("other", "JSON", '{"type": "object"}')
    rule, reason = Reading(client, "id VARCHAR").documents(frame(number, b"{}"))[0]
    assert rule == "schema" and "JSON" in reason and "avro" in reason
    number = client.register("text", "AVRO", '"string"')
    assert Reading(client, "id VARCHAR").documents(frame(number, b"\x02a"))[0][0] == "schema"


def test_a_header_names_the_schema_by_guid_or_by_id(client: RegistryClient) -> None:
    schema = record_schema(field("id", "string"))
    reading = Reading(client, "id VARCHAR")
    value = reading.written(schema, {"id": "a"})
    guid = client._ask("GET", f"/schemas/ids/{int.from_bytes(value[1:5], 'big')}")["guid"]
    by_guid = b"\x01" + uuid.UUID(guid).bytes
    headers = [
        [{"key": SCHEMA_HEADER, "value": each}] for each in (by_guid, value[:5], b"\x00\x00", b"\x05" * 5)
    ]
    found = reading.documents(*[value[5:]] * 4, headers=headers)
    assert found[:2] == [{"id": "a"}] * 2
    assert [each[0] for each in found[2:]] == ["framing"] * 2 and SCHEMA_HEADER in found[2][1]
    assert reading.documents(by_guid + value[5:]) == [{"id": "a"}]


def test_a_tombstone_stays_one_and_a_correction_may_be_json(client: RegistryClient) -> None:
    reading = Reading(client, "id VARCHAR")
    redriven = [{"key": "headrace.address", "value": b"0:1"}]
    found = reading.documents(None, b'{"id": "a"}', headers=[None, redriven])
    assert found == [None, {"id": "a"}]


def test_a_frozen_stream_takes_its_declared_schema_only(client: RegistryClient) -> None:
    reading = Reading(client, "id VARCHAR NOT NULL, n INT", "freeze")
    declared = {
        "type": "record",
        "name": "events",
        "doc": "a remark makes no other schema",
        "fields": [field("id", "string"), field("n", ["null", "int"], default=None)],
    }
    assert reading.of(declared, {"id": "a", "n": 1}) == {"id": "a", "n": 1}
    newer = {**declared, "fields": [*declared["fields"], field("x", "int", default=0)]}
    rule, reason = reading.of(newer, {"id": "a", "n": 1, "x": 2})
    assert rule == "schema" and "freeze" in reason
    assert Reading(client, "id VARCHAR NOT NULL, n INT").of(newer, {"id": "a", "n": 1, "x": 2}) == {
        "id": "a",
        "n": 1,
    }


def test_an_instant_out_of_range_and_a_wrong_time_of_day_are_set_aside(client: RegistryClient) -> None:
    reading = Reading(client, "at TIMESTAMP, t TIME")
    schema = record_schema(
        field("at", logical("long", "timestamp-micros")), field("t", logical("int", "time-millis"))
    )
    plain = record_schema(field("at", "long"), field("t", "int"))
    head = reading.written(schema, {"at": datetime(2026, 1, 1, tzinfo=UTC), "t": time(1)})[:5]
    far = reading.documents(
        head + encoded(plain, {"at": 2**62, "t": 0}), head + encoded(plain, {"at": 0, "t": 90_000_000})
    )
    assert [rule for rule, _ in far] == ["avro", "avro"]


def test_a_framing_can_be_sent_to_another_process(client: RegistryClient) -> None:
    reading = Reading(client, "id VARCHAR")
    schema = record_schema(field("id", "string"))
    value = reading.written(schema, {"id": "a"})
    assert reading.documents(value) == [{"id": "a"}]
    with closing(pickle.loads(pickle.dumps(reading.framing))) as copy:
        assert copy.documents(table_of([value])).texts.to_pylist() == [b'{"id":"a"}']


def test_a_client_that_was_closed_opens_again(registry: Any) -> None:
    with closing(RegistryClient(registry.url)) as client:
        assert client.subjects() == []
        client.close()
        assert client.subjects() == []
