"""Reads the records of a stream whose values name a schema: Avro and JSON Schema.

A record becomes JSON text, or gets the rule that it broke:
    framing   no magic byte, or too few bytes
    schema    the registry has no such schema, it is of another kind, cannot be resolved, or is not the one
              that a frozen stream allows
    avro      the bytes are not what the schema says
What the text is worth, the row stage decides as for every JSON record.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from headrace.declare import Stream
from headrace.errors import RefusedError
from headrace.log.documents import Documents
from headrace.log.registry.avro_binary import BinaryReader, least_bytes
from headrace.log.registry.avro_schema import AvroType, SchemaInvalid, shape_of
from headrace.log.registry.avro_text import TextMaker
from headrace.log.registry.client import RegistryClient
from headrace.log.registry.contents import Content, read_content
from headrace.log.registry.derive import avro_of, json_schema_of
from headrace.log.registry.wire import SCHEMA_HEADER, SchemaKey, Unreadable, key_in_front, key_in_header

__all__ = ["RegistryFraming", "StreamFormat", "plain_schema"]

Decode = Callable[[bytes, int], str | bytes]
_KINDS = {"avro": "AVRO", "json_schema": "JSON"}
_REDRIVE_HEADER = "headrace.address"
_FAILURES = (EOFError, ValueError, IndexError, KeyError, TypeError, OverflowError, AssertionError)


@dataclass(frozen=True)
class StreamFormat:
    """How the values of a stream are written.

    format      avro or json_schema
    subject     where its schemas belong in the registry
    schema      the text of a schema in place of the one that follows from the declared columns
    """

    stream: Stream
    format: str
    subject: str
    schema: str | None = None

    @property
    def kind(self) -> str:
        """What the registry calls the format."""
        return _KINDS[self.format]

    def content(self) -> Content:
        """Return the declared schema. Raises RefusedError when there is none."""
        make = avro_of if self.kind == "AVRO" else json_schema_of
        text = make(self.stream.name, self.stream.schema.columns) if self.schema is None else self.schema
        try:
            content = read_content(self.kind, text)
        except SchemaInvalid as error:
            raise RefusedError(
                f"stream '{self.stream.name}': {error.message}",
                fix="correct the file that registry_schema names",
            ) from None
        if self.kind == "AVRO" and content.parsed.kind != "record":
            raise RefusedError(
                f"stream '{self.stream.name}': the schema is a {content.parsed.kind}, not a record",
                fix="a stream's columns are the fields of a record",
            )
        return content


class RegistryFraming:
    """What the records of one stream say, by the schemas that a registry holds. One thread at a time."""

    def __init__(self, client: RegistryClient, form: StreamFormat) -> None:
        """Raises RefusedError when the declared schema is needed and there is none."""
        self._client = client
        self._form = form
        self._frozen = form.stream.contract == "freeze"
        needed = self._frozen or form.schema is not None
        self._declared = form.content() if needed else None
        self._decoders: dict[SchemaKey, Decode | Unreadable] = {}

    def close(self) -> None:
        """Give back the connections."""
        self._client.close()

    def documents(self, records: pa.Table) -> Documents:
        """Return what each record says; raises TransientError when the registry does not answer."""
        keys = _header_keys(records.column("headers"))
        unknown: dict[SchemaKey, Unreadable] = {}
        texts: list[str | bytes | None] = []
        unreadable: dict[int, tuple[tuple[str, str], ...]] = {}
        for row, value in enumerate(records.column("value").to_pylist()):
            text: str | bytes | None = None
            if value is not None:
                try:
                    text = self._text(value, keys.get(row), unknown)
                except Unreadable as problem:
                    unreadable[row] = ((problem.rule, problem.reason),)
            texts.append(text)
        return Documents(pa.array(texts, pa.binary()), unreadable)

    def _text(
        self, value: bytes, headers: _Headers | None, unknown: dict[SchemaKey, Unreadable]
    ) -> str | bytes:
        if headers is not None and headers.schema is not None:
            key, start = key_in_header(headers.schema), 0
        elif headers is not None and headers.redriven and value[:1] == b"{":
            return value  # somebody corrected a dead letter, and people write JSON
        else:
            key, start = key_in_front(value)
        decode = self._decoders.get(key) or unknown.get(key)
        if decode is None:
            decode = self._decoder(key)
            # That an id is unknown may be over in a moment; what it means when it is known never changes.
            (unknown if isinstance(decode, _Unknown) else self._decoders)[key] = decode  # type: ignore[assignment]
        if isinstance(decode, Unreadable):
            raise decode
        return decode(value, start)

    def _decoder(self, key: SchemaKey) -> Decode | Unreadable:
        named = f"schema {key}"
        try:
            content = self._client.schema(key)
        except SchemaInvalid as error:
            return Unreadable("schema", f"{named} cannot be understood: {error.message}")
        if content is None:
            return _Unknown("schema", f"{named} is not in the registry")
        if content.kind != self._form.kind:
            what = f"{named} is of type {content.kind}, and the stream's format is {self._form.format}"
            return Unreadable("schema", what)
        if self._frozen and not self._is_declared(content):
            return Unreadable(
                "schema", f"{named} is not the declared one, and the stream's contract is freeze"
            )
        if content.kind == "JSON":
            return _validated(content) if self._frozen else _payload
        return self._avro_decoder(content, named)

    def _avro_decoder(self, content: Content, named: str) -> Decode | Unreadable:
        writer: AvroType = content.parsed
        if writer.kind != "record":
            return Unreadable("schema", f"{named} is a {writer.kind}, not a record")
        reader = self._declared
        if reader is not None and (problems := reader.problems_reading(content)):
            told = "; ".join(f"{each.text} (at {each.path})" for each in problems[:5])
            return Unreadable("schema", f"{named} cannot be read with the declared one: {told}")
        return _avro_decode(writer, self._form.stream, None if reader is None else reader.parsed)

    def _is_declared(self, content: Content) -> bool:
        declared = self._declared
        if declared is None:
            return True
        if content.kind == "AVRO":
            return shape_of(content.parsed) == shape_of(declared.parsed)
        return bool(content.parsed == declared.parsed)


class _Unknown(Unreadable):
    """The registry has no such schema now."""


@dataclass(frozen=True)
class _Headers:
    schema: bytes | None
    redriven: bool


def _header_keys(column: pa.ChunkedArray) -> dict[int, _Headers]:
    """Return, by row, what headers say about the schema; most records have none."""
    if column.null_count == len(column):
        return {}
    found: dict[int, _Headers] = {}
    for row, headers in enumerate(column.to_pylist()):
        if headers:
            # The last one of a name holds, as Kafka's own clients read it.
            named = {header["key"]: header["value"] for header in headers}
            if SCHEMA_HEADER in named or _REDRIVE_HEADER in named:
                found[row] = _Headers(named.get(SCHEMA_HEADER), _REDRIVE_HEADER in named)
    return found


def _payload(value: bytes, start: int) -> bytes:
    return value[start:]


def _validated(content: Content) -> Decode:
    """Return the payload of documents that the schema allows."""
    check = content.validator()

    def decode(value: bytes, start: int) -> bytes:
        payload = value[start:]
        try:
            document = json.loads(payload)
        except (ValueError, RecursionError):
            return payload  # the row stage says what is wrong with it
        problem = next(iter(check.iter_errors(document)), None)
        if problem is not None:
            place = "/".join(str(part) for part in problem.absolute_path)
            raise Unreadable("schema", f"'{problem.validator}' is not met (at /{place})")
        return payload

    return decode


def _avro_decode(writer: AvroType, stream: Stream, reader: AvroType | None) -> Decode:
    """Return what makes JSON text of the bytes that `writer` describes."""
    columns = stream.schema.columns
    exact = BinaryReader(writer)
    exact_text = TextMaker(writer, columns, reader, paired=True).text

    def slowly(value: bytes, start: int) -> str:
        return exact_text(exact.read(value, start))

    if not _is_plain(writer):
        return slowly

    import fastavro

    schema = fastavro.parse_schema(plain_schema(writer))
    read = fastavro.schemaless_reader
    text = TextMaker(writer, columns, reader, paired=False).text

    def fast(value: bytes, start: int) -> str:
        source = io.BytesIO(value)
        source.seek(start)
        try:
            found = read(source, schema, None)
        except _FAILURES:
            return slowly(value, start)  # which says why
        if source.tell() != len(value):
            return slowly(value, start)
        return text(found)

    return fast


def _is_plain(kind: AvroType, outer: frozenset[int] = frozenset()) -> bool:
    """Whether fastavro can be trusted with it: not recursive, and a union is null and one other type."""
    if id(kind) in outer:
        return False
    outer |= {id(kind)}
    if kind.kind == "union":
        others = [branch for branch in kind.branches if branch.kind != "null"]
        return len(others) <= 1 and all(_is_plain(branch, outer) for branch in others)
    if kind.kind == "record":
        return len(outer) < 50 and all(_is_plain(each.type, outer) for each in kind.fields)
    if kind.kind in ("array", "map"):
        # Items without bytes: a few bytes could ask for a list that fills the memory.
        return (kind.kind == "map" or least_bytes(kind.inner) > 0) and _is_plain(kind.inner, outer)
    return True


def plain_schema(kind: AvroType, told: set[str] | None = None) -> Any:
    """Return the schema without logical types, defaults and aliases: for values as they are stored."""
    told = set() if told is None else told
    if kind.name:
        if kind.name in told:
            return kind.name
        told.add(kind.name)
    if kind.kind == "record":
        fields = [{"name": each.name, "type": plain_schema(each.type, told)} for each in kind.fields]
        return {"type": "record", "name": kind.name, "fields": fields}
    if kind.kind == "enum":
        return {"type": "enum", "name": kind.name, "symbols": list(kind.symbols)}
    if kind.kind == "fixed":
        return {"type": "fixed", "name": kind.name, "size": kind.size}
    if kind.kind == "union":
        return [plain_schema(branch, told) for branch in kind.branches]
    if kind.kind in ("array", "map"):
        return {
            "type": kind.kind,
            ("items" if kind.kind == "array" else "values"): plain_schema(kind.inner, told),
        }
    return kind.kind
