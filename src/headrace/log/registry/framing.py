"""Reads the records of a stream whose values name a schema: Avro and JSON Schema.

A record becomes JSON text, or gets the rule that it broke:
    framing   no magic byte, or too few bytes
    schema    the registry has no such schema, it is of another kind, cannot be resolved, or is not the one
              that a frozen stream allows
    avro      the bytes are not what the schema says
What the text is worth, the row stage decides as for every JSON record.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from headrace.declare import Stream
from headrace.errors import RefusedError
from headrace.log.arrays import Rows
from headrace.log.documents import Documents
from headrace.log.registry.avro_binary import BinaryReader
from headrace.log.registry.avro_columns import ColumnReader
from headrace.log.registry.avro_schema import AvroType, SchemaInvalid, shape_of
from headrace.log.registry.avro_text import TextMaker
from headrace.log.registry.client import RegistryClient
from headrace.log.registry.contents import Content, read_content
from headrace.log.registry.derive import avro_of, json_schema_of
from headrace.log.registry.wire import SCHEMA_HEADER, SchemaKey, Unreadable, key_in_front, key_in_header

__all__ = ["RegistryFraming", "StreamFormat", "plain_schema"]

Decode = Callable[[bytes, int], str | bytes]
_KINDS = {"avro": "AVRO", "json_schema": "JSON"}
_FRAME_BYTES = 5
_REDRIVE_HEADER = "headrace.address"


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
    """What the records of one stream say, by the schemas that a registry holds.

    One thread at a time, but for `prepare`, which another one may call.
    """

    def __init__(self, client: RegistryClient, form: StreamFormat) -> None:
        """Raises RefusedError when the declared schema is needed and there is none."""
        self._client = client
        self._form = form
        self._frozen = form.stream.contract == "freeze"
        needed = self._frozen or form.schema is not None
        self._declared = form.content() if needed else None
        self._decoders: dict[SchemaKey, Decode | Unreadable] = {}

    def __reduce__(self) -> tuple[Any, ...]:
        return RegistryFraming, (self._client, self._form)

    def close(self) -> None:
        """Give back the connections."""
        self._client.close()

    def prepare(self, records: pa.Table) -> None:
        """Ask the registry for the schemas of `records`; raises TransientError when it does not answer."""
        headers = {
            row: each.schema
            for row, each in _header_keys(records.column("headers")).items()
            if each.schema is not None
        }
        values = _one_array(records.column("value"))
        numbers = _Front.of(values).numbers
        others = set(np.flatnonzero(numbers < 0).tolist()) - headers.keys()
        numbers[list(headers)] = -1  # what stands in front of these values is the payload
        wanted: set[SchemaKey] = set(np.unique(numbers[numbers >= 0]).tolist())
        for value in values.take(pa.array(sorted(others), pa.int64())).to_pylist():
            with suppress(Unreadable):
                wanted.add(key_in_front(value or b"")[0])
        for header in headers.values():
            with suppress(Unreadable):
                wanted.add(key_in_header(header))
        for key in wanted:
            self._known(key, {})

    def documents(self, records: pa.Table) -> Documents:
        """Return what each record says; raises TransientError when the registry does not answer."""
        keys = _header_keys(records.column("headers"))
        unknown: dict[SchemaKey, Unreadable] = {}
        texts, left = self._together(records, keys, unknown)
        found: list[str | bytes | None] = []
        unreadable: dict[int, tuple[tuple[str, str], ...]] = {}
        values = records.column("value")
        chosen = values if len(left) == len(values) else values.take(pa.array(left))
        for row, value in zip(left.tolist(), chosen.to_pylist(), strict=True):
            text: str | bytes | None = None
            if value is not None:
                try:
                    text = self._text(value, keys.get(row), unknown)
                except Unreadable as problem:
                    unreadable[row] = ((problem.rule, problem.reason),)
            found.append(text)
        return Documents(_placed(texts, left, pa.array(found, pa.binary()), len(values)), unreadable)

    def _together(
        self, records: pa.Table, keys: Mapping[int, _Headers], unknown: dict[SchemaKey, Unreadable]
    ) -> tuple[list[tuple[Rows, pa.Array]], Rows]:
        """Read many records of one schema at once; gives rows with their texts, and what rows are left."""
        every: Rows = np.arange(records.num_rows)
        if self._form.kind != "AVRO" or keys:
            return [], every
        values = _one_array(records.column("value"))
        if values.null_count:
            return [], every
        front = _Front.of(values)
        numbers = front.numbers
        texts: list[tuple[Rows, pa.Array]] = []
        done = np.zeros(len(every), np.bool_)
        different, counts = np.unique(numbers, return_counts=True)
        for number, count in zip(different.tolist(), counts.tolist(), strict=True):
            decode = self._known(number, unknown) if number >= 0 else None
            if not isinstance(decode, _AvroDecode) or decode.columns is None:
                continue
            if count < decode.columns.rows_min:
                continue
            rows = np.flatnonzero(numbers == number)
            starts = front.starts[rows] + _FRAME_BYTES
            text, odd = decode.columns.texts(front.data, starts, front.ends[rows])
            done[rows[~odd]] = True
            texts.append((rows[~odd], text if not odd.any() else text.filter(pa.array(~odd))))
        return texts, np.flatnonzero(~done)

    def _text(
        self, value: bytes, headers: _Headers | None, unknown: dict[SchemaKey, Unreadable]
    ) -> str | bytes:
        if headers is not None and headers.schema is not None:
            key, start = key_in_header(headers.schema), 0
        elif headers is not None and headers.redriven and value[:1] == b"{":
            return value  # somebody corrected a dead letter, and people write JSON
        else:
            key, start = key_in_front(value)
        decode = self._known(key, unknown)
        if isinstance(decode, Unreadable):
            raise decode
        return decode(value, start)

    def _known(self, key: SchemaKey, unknown: dict[SchemaKey, Unreadable]) -> Decode | Unreadable:
        found = self._decoders.get(key) or unknown.get(key)
        if found is None:
            found = self._decoder(key)
            # That an id is unknown may be over in a moment; what it means when it is known never changes.
            if isinstance(found, _Unknown):
                unknown[key] = found
            else:
                self._decoders[key] = found
        return found

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
        return _AvroDecode(writer, self._form.stream, None if reader is None else reader.parsed)

    def _is_declared(self, content: Content) -> bool:
        declared = self._declared
        if declared is None:
            return True
        if content.kind == "AVRO":
            return shape_of(content.parsed) == shape_of(declared.parsed)
        return bool(content.parsed == declared.parsed)


@dataclass(frozen=True)
class _Front:
    """The bytes of many values: where each begins and ends, and the id in front of it, -1: none."""

    data: npt.NDArray[np.uint8]
    starts: Rows
    ends: Rows
    numbers: Rows

    @staticmethod
    def of(values: pa.Array) -> _Front:
        _, offsets, content = values.buffers()
        data = np.frombuffer(content or b"", np.uint8)
        bounds: Rows = np.zeros(1, np.int64)
        if len(values):
            held = np.frombuffer(offsets, np.int32)
            bounds = held[values.offset : values.offset + len(values) + 1].astype(np.int64)
        starts, ends = bounds[:-1], bounds[1:]
        head = np.zeros((len(values), _FRAME_BYTES), np.uint8)
        if len(data):
            head = data[np.minimum(starts[:, None] + np.arange(_FRAME_BYTES), len(data) - 1)]
        numbers: Rows = head[:, 1:].astype(np.int64) @ np.array([1 << 24, 1 << 16, 1 << 8, 1])
        numbers[(ends - starts < _FRAME_BYTES) | (head[:, 0] != 0)] = -1
        return _Front(data, starts, ends, numbers)


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


class _AvroDecode:
    """Makes JSON text of the bytes that a writer's schema describes; `columns` reads many at once, if any."""

    def __init__(self, writer: AvroType, stream: Stream, reader: AvroType | None) -> None:
        declared = stream.schema.columns
        self.columns = ColumnReader.of(writer, declared, reader)
        self._read = BinaryReader(writer).read
        self._text = TextMaker(writer, declared, reader).text

    def __call__(self, value: bytes, start: int) -> str:
        return self._text(self._read(value, start))


def _one_array(column: pa.ChunkedArray) -> pa.Array:
    combined = column.combine_chunks()
    if isinstance(combined, pa.ChunkedArray):
        combined = combined.chunk(0) if combined.num_chunks else pa.array([], pa.binary())
    return combined


def _placed(texts: list[tuple[Rows, pa.Array]], left: Rows, found: pa.Array, count: int) -> pa.Array:
    """Return all texts in the order of their rows."""
    if not texts:
        return found
    if len(texts) == 1 and not len(left):
        return texts[0][1].cast(pa.binary())
    places = np.empty(count, np.int64)
    places[np.concatenate([*(rows for rows, _ in texts), left])] = np.arange(count)
    return pa.concat_arrays([*(text.cast(pa.binary()) for _, text in texts), found]).take(pa.array(places))


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
