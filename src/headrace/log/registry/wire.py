"""Where a record says which schema it was written with: Confluent's wire format.

In front of the value: a byte 0 and the schema's id (4 bytes, big-endian), or a byte 1 and its guid (16
bytes). Newer serializers send the same bytes as the header `__value_schema_id`, and the value is then the
bare payload; the header comes first, as in Confluent's own deserializers.
"""

from __future__ import annotations

import struct
import uuid
from dataclasses import dataclass

__all__ = ["SCHEMA_HEADER", "SchemaKey", "Unreadable", "frame", "key_in_front", "key_in_header"]

SCHEMA_HEADER = "__value_schema_id"
_ID, _GUID = 0, 1
_ID_BYTES, _GUID_BYTES = 5, 17

SchemaKey = int | str
"""A schema's id, or its guid."""


@dataclass
class Unreadable(Exception):
    """A record cannot be read by a schema: the rule that it broke, and why. Holds nothing of the record."""

    rule: str
    reason: str

    def __str__(self) -> str:
        return self.reason


def frame(number: int, payload: bytes) -> bytes:
    """Return a value in the wire format."""
    return struct.pack(">bI", _ID, number) + payload


def key_in_front(value: bytes) -> tuple[SchemaKey, int]:
    """Return the schema's key and where the payload begins. Raises Unreadable."""
    if not value:
        raise Unreadable("framing", "the value is empty")
    if value[0] == _ID and len(value) >= _ID_BYTES:
        return int.from_bytes(value[1:_ID_BYTES], "big"), _ID_BYTES
    if value[0] == _GUID and len(value) >= _GUID_BYTES:
        return str(uuid.UUID(bytes=value[1:_GUID_BYTES])), _GUID_BYTES
    if value[0] in (_ID, _GUID):
        needed = _ID_BYTES if value[0] == _ID else _GUID_BYTES
        raise Unreadable("framing", f"{len(value)} bytes, too few for the {needed} that name a schema")
    hint = "; it may be JSON without a schema" if value[:1] in b"{[" else ""
    raise Unreadable("framing", f"the first byte is {value[0]}, not 0 or 1 (Confluent's wire format){hint}")


def key_in_header(header: bytes) -> SchemaKey:
    """Return the schema's key of a `__value_schema_id` header. Raises Unreadable."""
    try:
        key, start = key_in_front(header)
    except Unreadable as error:
        raise Unreadable("framing", f"header {SCHEMA_HEADER}: {error.reason}") from None
    if start != len(header):
        raise Unreadable("framing", f"header {SCHEMA_HEADER}: {len(header)} bytes, not {start}")
    return key
