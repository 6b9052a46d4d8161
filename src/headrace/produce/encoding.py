"""Writes records in the format of their stream: JSON goes in, framed Avro or JSON Schema goes to the log."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from decimal import Context, Decimal, Inexact, InvalidOperation
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from headrace.declare import Column, DataType, ListType, MapType, ScalarType, Stream, StructType
from headrace.errors import RefusedError
from headrace.log.protocol import RECORD_SCHEMA, Appended, Log, PartitionRange, Slice, settles_after
from headrace.log.registry.avro_schema import AvroType
from headrace.log.registry.client import RegistryClient
from headrace.log.registry.framing import StreamFormat, plain_schema
from headrace.log.registry.wire import frame
from headrace.produce.avro_writing import ColumnWriter
from headrace.rows.stage import RowStage
from headrace.rows.strict import read_record
from headrace.sql.plan import NamedColumn, StreamPlan

__all__ = ["EncodedLog", "Encoder", "Unfit", "prepare"]

Unfit = Literal["refuse", "keep"]
_TOGETHER_MIN = 50
"""Fewer records are written one by one: a query of the row stage takes milliseconds."""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_EXACT = Context(prec=200, traps=[Inexact, InvalidOperation])


def prepare(client: RegistryClient, form: StreamFormat, *, auto_register: bool) -> int:
    """Return the id of the stream's schema in the registry, before the first record is written.

    Raises RefusedError that names what is incompatible, or that it is not registered; TransientError.
    """
    content = form.content()
    found = client.find(form.subject, content.kind, content.text)
    if found is not None:
        return found.id
    if not auto_register:
        raise RefusedError(
            f"stream '{form.stream.name}': its schema is not registered under '{form.subject}', "
            "and registry_auto_register is no",
            fix=f"register it: headrace registry register {form.subject} FILE",
        )
    reasons = client.check(form.subject, content.kind, content.text)
    if reasons:
        raise RefusedError(
            f"stream '{form.stream.name}': its schema is incompatible with subject '{form.subject}': "
            + "; ".join(reasons)[:2000],
            fix="declare a column that is new so that it may be NULL, or name another registry_subject",
        )
    return client.register(form.subject, content.kind, content.text)


class Unwritable(Exception):
    """A record does not fit the schema; the text says why, without the record."""


class Encoder:
    """Frames records with one schema. With `unfit` "keep", what does not fit stays as it is.

    Such a record will be malformed: for generators, which spoil some on purpose. Used by one thread at a
    time. Many records of Avro are read by a row stage and written column by column; the others, and what is
    odd, one by one.
    """

    def __init__(self, form: StreamFormat, number: int, *, unfit: Unfit = "refuse") -> None:
        self._form = form
        self._number = number
        self._unfit = unfit
        self._encode = _AvroEncoder(form) if form.kind == "AVRO" else _JsonEncoder(form)
        columns = form.stream.schema.columns
        self._columns = ColumnWriter.of(form.content().parsed, columns) if form.kind == "AVRO" else None
        self._stage = RowStage(_plain(form.stream))

    def encode(self, values: list[bytes | None]) -> list[bytes | None]:
        """Return the framed values; a tombstone stays one. Raises RefusedError for one that does not fit."""
        if self._columns is None or len(values) < _TOGETHER_MIN:
            return [self._encoded(at, value) for at, value in enumerate(values)]
        rows = self._stage.run(_records(values), lane="redrive").timely
        texts = self._columns.framed(rows, frame(self._number, b""))
        known = dict(zip(rows.column("_offset").to_pylist(), texts.to_pylist(), strict=True))
        return [known[at] if at in known else self._encoded(at, value) for at, value in enumerate(values)]

    def close(self) -> None:
        """Give back what reads the records."""
        self._stage.close()

    def _encoded(self, at: int, value: bytes | None) -> bytes | None:
        if value is None:
            return None
        try:
            return frame(self._number, self._encode(value))
        except Unwritable as problem:
            if self._unfit == "keep":
                return value
            raise RefusedError(
                f"stream '{self._form.stream.name}': a record does not fit its schema: {problem} "
                f"(number {at + 1} of those that were to be appended together)",
                fix="correct the record, or declare the column otherwise",
            ) from None


def _plain(stream: Stream) -> StreamPlan:
    """Return what reads the declared columns of a stream and asks nothing else of a record."""
    bare = replace(stream, event_time=None, unique=(), derive=(), expect=(), label=None)
    columns = tuple(NamedColumn(column.name, column.type.sql) for column in stream.schema.columns)
    return StreamPlan(bare, (), (), columns, ())


def _records(values: list[bytes | None]) -> pa.Table:
    """Return the values as records whose offsets are their places."""
    count = len(values)
    known = {
        "partition": pa.array(np.zeros(count, np.int32)),
        "offset": pa.array(np.arange(count)),
        "record_time": pa.repeat(pa.scalar(0, RECORD_SCHEMA.field("record_time").type), count),
        "value": pa.array(values, pa.binary()),
    }
    columns = [known.get(each.name, pa.nulls(count, each.type)) for each in RECORD_SCHEMA]
    return pa.Table.from_arrays(columns, schema=RECORD_SCHEMA)


class _JsonEncoder:
    """Documents that the schema allows; fields that are not declared are left out."""

    def __init__(self, form: StreamFormat) -> None:
        self._columns = form.stream.schema.columns
        self._row = StructType(tuple((column.name, column.type) for column in self._columns))
        # The schema of the columns says nothing that their strict reading has not asked already.
        self._check = None if form.schema is None else form.content().validator()

    def __call__(self, value: bytes) -> bytes:
        _refuse_malformed(value, self._columns)
        document = _pruned(json.loads(value, parse_float=Decimal), self._row)
        problem = None if self._check is None else next(iter(self._check.iter_errors(document)), None)
        if problem is not None:
            place = "/".join(str(part) for part in problem.absolute_path)
            raise Unwritable(f"'{problem.validator}' is not met (at /{place})")
        return _dumped(document).encode()


def _refuse_malformed(value: bytes, columns: tuple[Column, ...]) -> str:
    reading = read_record(value, columns, None)
    if reading.reasons:
        raise Unwritable("; ".join(f"{rule}: {reason}" for rule, reason in reading.reasons))
    return reading.text


def _pruned(value: Any, kind: DataType) -> Any:
    if isinstance(kind, StructType) and isinstance(value, dict):
        return {name: _pruned(value[name], part) for name, part in kind.fields if name in value}
    if isinstance(kind, ListType) and isinstance(value, list):
        return [_pruned(each, kind.item) for each in value]
    if isinstance(kind, MapType) and isinstance(value, dict):
        return {name: _pruned(each, kind.value) for name, each in value.items()}
    return value


def _dumped(value: Any) -> str:
    if isinstance(value, Decimal):
        return str(value)  # the digits as they came; json.dumps would make a double of them
    if isinstance(value, dict):
        parts = (f"{json.dumps(name, ensure_ascii=False)}:{_dumped(part)}" for name, part in value.items())
        return "{" + ",".join(parts) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(_dumped, value)) + "]"
    return json.dumps(value, ensure_ascii=False)


class _AvroEncoder:
    """Avro's binary form of the declared columns."""

    def __init__(self, form: StreamFormat) -> None:
        import fastavro

        self._columns = form.stream.schema.columns
        self._kind: AvroType = form.content().parsed
        self._types = {column.name: column.type for column in self._columns}
        self._schema = fastavro.parse_schema(plain_schema(self._kind))
        self._write = fastavro.schemaless_writer

    def __call__(self, value: bytes) -> bytes:
        row = json.loads(_refuse_malformed(value, self._columns))
        sink = io.BytesIO()
        try:
            self._write(sink, self._schema, _record(self._kind, row, self._types))
        except (ValueError, TypeError, OverflowError, KeyError, ArithmeticError) as error:
            raise Unwritable(f"the schema cannot hold it ({type(error).__name__})") from None
        return sink.getvalue()


def _record(kind: AvroType, row: Mapping[str, Any], types: Mapping[str, DataType]) -> dict[str, Any]:
    """Return the fields that the schema has; one that the row does not have gets its default."""
    found: dict[str, Any] = {}
    for field in kind.fields:
        given = row.get(field.name)
        if given is None and not _takes_null(field.type):
            if field.has_default:
                found[field.name] = _defaulted(field.type, field.default)
                continue
            raise Unwritable(f"column {field.name} is NULL, and its field has no default")
        try:
            found[field.name] = _value(field.type, given, types.get(field.name))
        except (ValueError, TypeError, ArithmeticError, AttributeError):
            raise Unwritable(f"column {field.name}: its field cannot hold the value") from None
    return found


def _takes_null(kind: AvroType) -> bool:
    return kind.kind == "null" or any(branch.kind == "null" for branch in kind.branches)


def _defaulted(kind: AvroType, default: Any) -> Any:
    if kind.kind == "union":
        return _defaulted(kind.branches[0], default)
    return default.encode("latin-1") if kind.kind in ("bytes", "fixed") else default


def _value(kind: AvroType, value: Any, target: DataType | None) -> Any:
    """Return what fastavro writes: numbers, text and bytes, no logical types.

    `value` is in the notation that `read_record` writes: every scalar but a boolean is a string.
    """
    if kind.kind == "union":
        return _branch(kind, value, target)
    if kind.kind == "record":
        fields = dict(target.fields) if isinstance(target, StructType) else {}
        return _record(kind, value, fields)
    if kind.kind == "array":
        item = target.item if isinstance(target, ListType) else None
        return [_value(kind.inner, each, item) for each in value]
    if kind.kind == "map":
        part = target.value if isinstance(target, MapType) else None
        return {name: _value(kind.inner, each, part) for name, each in value.items()}
    if kind.kind == "boolean":
        if not isinstance(value, bool):
            raise ValueError("no boolean")
        return value
    if kind.kind in ("int", "long"):
        return _whole(kind, value)
    if kind.kind in ("float", "double"):
        return float(value)
    if kind.kind in ("bytes", "fixed"):
        return _bytes(kind, value, target)
    if isinstance(target, ScalarType) and target.sql == "JSON":
        return json.dumps(value, ensure_ascii=False)
    if not isinstance(value, str) or (kind.kind == "enum" and value not in kind.symbols):
        raise ValueError("no text of this kind")
    return value


def _branch(kind: AvroType, value: Any, target: DataType | None) -> Any:
    if value is None:
        if not _takes_null(kind):
            raise ValueError("no null")
        return None
    for branch in kind.branches:
        if branch.kind == "null":
            continue
        try:
            return _value(branch, value, target)
        except (ValueError, TypeError, ArithmeticError, AttributeError, Unwritable):
            continue
    raise ValueError("no branch takes it")


_UNITS = {"millis": 1_000, "micros": 1}


def _whole(kind: AvroType, value: str) -> int:
    word, _, unit = kind.logical.rpartition("-")
    if kind.logical == "date":
        return date.fromisoformat(value).toordinal() - _EPOCH.toordinal()
    if word in ("timestamp", "local-timestamp"):
        micros = (datetime.fromisoformat(value) - _EPOCH) // _MICROSECOND
        return micros * 1_000 if unit == "nanos" else micros // _UNITS[unit]
    if word == "time":
        clock = datetime.fromisoformat(f"1970-01-01T{value[:15]}+00:00")
        return ((clock - _EPOCH) // _MICROSECOND) // _UNITS[unit]
    return int(value)


def _bytes(kind: AvroType, value: str, target: DataType | None) -> bytes:
    if kind.logical == "decimal":
        # Exact or not at all: a digit must not be lost on the way.
        units = int(Decimal(value).scaleb(kind.scale, _EXACT).to_integral_exact(context=_EXACT))
        if len(str(abs(units))) > kind.precision:
            raise ValueError("more digits than the schema has")
        size = kind.size if kind.kind == "fixed" else (units.bit_length() + 8) // 8
        return units.to_bytes(size, "big", signed=True)
    if kind.logical == "uuid":
        return bytes.fromhex(value.replace("-", ""))
    if isinstance(target, ScalarType) and target.sql == "BLOB":
        import base64

        return base64.b64decode(value, validate=True)
    return value.encode()


class EncodedLog:
    """A log whose appends are encoded; everything else is the log itself."""

    def __init__(self, log: Log, encoder: Encoder) -> None:
        self._log = log
        self._encoder = encoder

    def append(self, records: pa.Table) -> Appended:
        """Append `records`, whose values are JSON; see `Log.append` and `Encoder.encode`."""
        at = records.schema.get_field_index("value")
        values = pa.array(self._encoder.encode(records.column(at).to_pylist()), pa.binary())
        return self._log.append(records.set_column(at, records.schema.field(at), values))

    @property
    def stream(self) -> str:
        """See `Log`."""
        return self._log.stream

    @property
    def settles_after(self) -> timedelta:
        """See `Settles`."""
        return settles_after(self._log)

    @property
    def identity(self) -> str:
        """See `Log`."""
        return self._log.identity

    def now(self) -> datetime:
        """See `Log`."""
        return self._log.now()

    def partitions(self) -> tuple[PartitionRange, ...]:
        """See `Log`."""
        return self._log.partitions()

    def read(self, positions: Mapping[int, int], *, rows_max: int, bytes_max: int, wait: timedelta) -> Slice:
        """See `Log`."""
        return self._log.read(positions, rows_max=rows_max, bytes_max=bytes_max, wait=wait)

    def publish(self, reader: str, positions: Mapping[int, int]) -> None:
        """See `Log`."""
        self._log.publish(reader, positions)

    def readers(self, name: str | None = None) -> Mapping[str, Mapping[int, int]]:
        """See `Log`."""
        return self._log.readers(name)

    def load(self) -> AbstractContextManager[None]:
        """See `Log`."""
        return self._log.load()

    def lane(self, name: str, *, latest: bool = False) -> Log:
        """See `Log`; what goes to a lane is not encoded, because it was."""
        return self._log.lane(name, latest=latest)

    def close(self) -> None:
        """See `Log`."""
        self._encoder.close()
        self._log.close()
