"""The embedded registry serves a client that knows nothing of it: confluent-kafka's own (de)serializers."""

from __future__ import annotations

import json
import uuid
import warnings
from collections.abc import Iterator
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import pytest

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # the client tells its authors about modules that it should replace
    from confluent_kafka.schema_registry import (
        Schema,
        SchemaReference,
        SchemaRegistryClient,
        header_schema_id_serializer,
    )
    from confluent_kafka.schema_registry.avro import AvroDeserializer, AvroSerializer
    from confluent_kafka.schema_registry.error import SchemaRegistryError
    from confluent_kafka.schema_registry.json_schema import JSONDeserializer, JSONSerializer
    from confluent_kafka.serialization import MessageField, SerializationContext

from headrace.log.registry.wire import key_in_front, key_in_header

VALUE = SerializationContext("orders", MessageField.VALUE)
V1 = {
    "type": "record",
    "name": "Order",
    "namespace": "shop",
    "fields": [
        {"name": "id", "type": "string"},
        {"name": "amount", "type": {"type": "bytes", "logicalType": "decimal", "precision": 12, "scale": 2}},
        {"name": "at", "type": {"type": "long", "logicalType": "timestamp-millis"}},
        {"name": "day", "type": ["null", {"type": "int", "logicalType": "date"}], "default": None},
    ],
}
V2 = {**V1, "fields": [*V1["fields"], {"name": "device", "type": "string", "default": "unknown"}]}
ORDER = {
    "id": "a",
    "amount": Decimal("12.50"),
    "at": datetime(2026, 3, 1, 12, tzinfo=UTC),
    "day": date(2026, 3, 1),
}
JSON_V1 = {
    "$schema": "http://json-schema.org/draft-07/schema#",
    "title": "Order",
    "type": "object",
    "properties": {"id": {"type": "string"}, "amount": {"type": "number"}},
    "required": ["id"],
    "additionalProperties": False,
}
JSON_V2 = {**JSON_V1, "properties": {**JSON_V1["properties"], "device": {"type": "string"}}}


@pytest.fixture
def their_client(registry: Any) -> Iterator[SchemaRegistryClient]:
    with SchemaRegistryClient({"url": registry.url}) as opened:
        yield opened


def test_avro_is_registered_evolved_and_read(their_client: SchemaRegistryClient) -> None:
    old = AvroSerializer(their_client, json.dumps(V1))(ORDER, VALUE)
    new = AvroSerializer(their_client, json.dumps(V2))({**ORDER, "device": "mobile"}, VALUE)
    assert old is not None and new is not None and key_in_front(old)[0] != key_in_front(new)[0]
    assert their_client.get_versions("orders-value") == [1, 2]
    read = AvroDeserializer(their_client, json.dumps(V2))
    assert read(old, VALUE) == {**ORDER, "device": "unknown"}
    assert read(new, VALUE) == {**ORDER, "device": "mobile"}
    assert AvroDeserializer(their_client, json.dumps(V1))(new, VALUE) == ORDER


def test_an_avro_schema_that_cannot_read_the_one_before_is_refused(
    their_client: SchemaRegistryClient,
) -> None:
    AvroSerializer(their_client, json.dumps(V1))(ORDER, VALUE)
    broken = {**V1, "fields": [*V1["fields"], {"name": "device", "type": "string"}]}
    with pytest.raises(SchemaRegistryError, match="device") as refused:
        AvroSerializer(their_client, json.dumps(broken))({**ORDER, "device": "mobile"}, VALUE)
    assert (refused.value.http_status_code, refused.value.error_code) == (409, 409)
    assert not their_client.test_compatibility("orders-value", Schema(json.dumps(broken), "AVRO"))
    assert their_client.test_compatibility("orders-value", Schema(json.dumps(V2), "AVRO"))


def test_json_schema_is_registered_evolved_and_read(their_client: SchemaRegistryClient) -> None:
    old = JSONSerializer(json.dumps(JSON_V1), their_client)({"id": "a", "amount": 1.5}, VALUE)
    new = JSONSerializer(json.dumps(JSON_V2), their_client)({"id": "b", "device": "mobile"}, VALUE)
    assert their_client.get_versions("orders-value") == [1, 2]
    read = JSONDeserializer(json.dumps(JSON_V2), schema_registry_client=their_client)
    assert read(old, VALUE) == {"id": "a", "amount": 1.5}
    assert read(new, VALUE) == {"id": "b", "device": "mobile"}
    narrowed = {**JSON_V1, "required": ["id", "amount"]}
    with pytest.raises(SchemaRegistryError) as refused:
        JSONSerializer(json.dumps(narrowed), their_client)({"id": "b", "amount": 1}, VALUE)
    assert refused.value.http_status_code == 409


def test_a_schema_is_found_by_the_guid_that_a_header_carries(their_client: SchemaRegistryClient) -> None:
    context = SerializationContext("orders", MessageField.VALUE, [])
    write = AvroSerializer(
        their_client, json.dumps(V1), conf={"schema.id.serializer": header_schema_id_serializer}
    )
    value = write(ORDER, context)
    ((name, header),) = context.headers
    guid = key_in_header(header)
    assert name == "__value_schema_id" and isinstance(guid, str) and uuid.UUID(guid)
    their_client.clear_caches()
    assert AvroDeserializer(their_client, json.dumps(V1))(value, context) == ORDER


def test_references_are_kept_and_followed(their_client: SchemaRegistryClient) -> None:
    address = {
        "type": "record",
        "name": "Address",
        "namespace": "shop",
        "fields": [{"name": "city", "type": "string"}],
    }
    their_client.register_schema("address", Schema(json.dumps(address), "AVRO"))
    person = {
        "type": "record",
        "name": "Person",
        "namespace": "shop",
        "fields": [{"name": "lives", "type": "shop.Address"}],
    }
    schema = Schema(json.dumps(person), "AVRO", [SchemaReference("shop.Address", "address", 1)])
    value = AvroSerializer(their_client, schema)({"lives": {"city": "Ulm"}}, VALUE)
    assert AvroDeserializer(their_client)(value, VALUE) == {"lives": {"city": "Ulm"}}


def test_settings_and_deletions_are_as_it_expects(their_client: SchemaRegistryClient) -> None:
    first = their_client.register_schema("s", Schema('"string"', "AVRO"))
    assert their_client.get_schema(first).schema_str == '"string"'
    assert their_client.set_compatibility("s", "FULL") == {"compatibility": "FULL"}
    assert their_client.get_compatibility("s") == "FULL"
    assert their_client.get_subjects() == ["s"]
    assert their_client.get_latest_version("s").version == 1
    assert their_client.lookup_schema("s", Schema('{"type": "string"}', "AVRO")).schema_id == first
    assert their_client.delete_subject("s") == [1]
    assert their_client.get_subjects() == []
    assert their_client.delete_subject("s", permanent=True) == [1]
    their_client.clear_caches()
    with pytest.raises(SchemaRegistryError) as refused:
        their_client.get_latest_version("s")
    assert (refused.value.http_status_code, refused.value.error_code) == (404, 40401)
