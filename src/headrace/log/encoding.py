"""How a batch of records lies in one SQLite row, and how rows become Arrow again.

Values and keys are stored as their concatenated bytes with an int32 length each (-1: NULL); record times as
one number when all are equal, else as int64 microseconds; headers, which are rare, as an Arrow stream. Large
values are compressed with LZ4: JSON shrinks to about a third, which is cheaper than reading and writing the
rest. Every row carries a CRC-32 of what is stored. Both ways work on whole buffers, never record by record.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from headrace.errors import IntegrityError
from headrace.log.protocol import RECORD_SCHEMA

__all__ = ["ROW_COLUMNS", "Batch", "EncodedBatch", "decode", "encode", "record_batches"]

ROW_COLUMNS = (
    "partition, first_offset, records, first_time, max_time, bytes, stored_bytes, checksum, codec, times, "
    'value_lengths, key_lengths, headers, keys, "values"'
)

_PLAIN, _LZ4 = 0, 1
_COMPRESS_FROM_BYTES = 4096
_BATCH_RECORDS_MAX = 65_536
_BATCH_BYTES_MAX = 16 * 1024 * 1024
# Batches smaller than this are joined into one Arrow chunk; copying larger ones costs more than it gains.
_CHUNK_BYTES = 1024 * 1024
_CHUNK_BYTES_MAX = 1 << 30
_HEADERS = RECORD_SCHEMA.field("headers").type

Lengths = npt.NDArray[np.int32]
Times = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class EncodedBatch:
    """Records of one partition, ready to be stored but for their offset and times."""

    records: int
    size: int
    codec: int
    value_lengths: bytes
    key_lengths: bytes | None
    headers: bytes | None
    keys: bytes | None
    values: bytes
    body_checksum: int

    def row(self, partition: int, first_offset: int, times: int | Times) -> tuple[Any, ...]:
        """Return the values of ROW_COLUMNS; `times` is one number when all are equal."""
        if isinstance(times, int):
            first, last, stored_times = times, times, None
        else:
            first, last, stored_times = int(times[0]), int(times.max()), times.astype("<i8").tobytes()
        stored = len(self.values) + len(self.value_lengths)
        stored += sum(len(part) for part in (stored_times, self.key_lengths, self.headers, self.keys) if part)
        checksum = _checksum(
            self.body_checksum, partition, first_offset, self.records, first, last, self.codec, stored_times
        )
        return (
            *(partition, first_offset, self.records, first, last, self.size, stored, checksum, self.codec),
            *(stored_times, self.value_lengths, self.key_lengths, self.headers, self.keys, self.values),
        )


@dataclass(frozen=True, slots=True)
class Batch:
    """Records of one partition as they were stored, checked and decompressed.

    `times` is None when every record has `first_time`; `values` and `keys` are bytes-like.
    """

    partition: int
    first_offset: int
    records: int
    first_time: int
    times: Times | None
    value_lengths: Any
    key_lengths: Any | None
    headers: pa.Array | None
    keys: Any
    values: Any

    def time_at(self, index: int) -> int:
        """Return the record time of one record."""
        return self.first_time if self.times is None else int(self.times[index])

    def until(self, count: int) -> Batch:
        """Return the batch's first `count` records."""
        if count == self.records:
            return self
        value_lengths = np.frombuffer(self.value_lengths, np.int32)[:count]
        key_lengths, keys = self.key_lengths, self.keys
        if key_lengths is not None:
            key_lengths = np.frombuffer(key_lengths, np.int32)[:count]
            keys = memoryview(keys)[: _total(key_lengths)]
        return replace(
            self,
            records=count,
            times=None if self.times is None else self.times[:count],
            value_lengths=value_lengths,
            key_lengths=key_lengths,
            headers=None if self.headers is None else self.headers[:count],
            keys=keys,
            values=memoryview(self.values)[: _total(value_lengths)],
        )

    def measures(self) -> tuple[Times, Times]:
        """Return the record time of each record, and its bytes (value and key)."""
        times = np.full(self.records, self.first_time, np.int64) if self.times is None else self.times
        sizes = np.frombuffer(self.value_lengths, np.int32).clip(0).astype(np.int64)
        if self.key_lengths is not None:
            sizes += np.frombuffer(self.key_lengths, np.int32).clip(0)
        return times, sizes

    def since(self, skip: int) -> Batch:
        """Return the batch without its first `skip` records."""
        if skip == 0:
            return self
        value_lengths = np.frombuffer(self.value_lengths, np.int32)
        value_start = _total(value_lengths[:skip])
        key_lengths, keys = self.key_lengths, self.keys
        if key_lengths is not None:
            key_lengths = np.frombuffer(key_lengths, np.int32)
            keys = memoryview(keys)[_total(key_lengths[:skip]) :]
            key_lengths = key_lengths[skip:]
        return replace(
            self,
            first_offset=self.first_offset + skip,
            records=self.records - skip,
            first_time=self.time_at(skip),
            times=None if self.times is None else self.times[skip:],
            value_lengths=value_lengths[skip:],
            key_lengths=key_lengths,
            headers=None if self.headers is None else self.headers[skip:],
            keys=keys,
            values=memoryview(self.values)[value_start:],
        )


def _total(lengths: Lengths) -> int:
    return int(np.maximum(lengths, 0).sum(dtype=np.int64))


def _checksum(body: int, *facts: Any) -> int:
    *numbers, times = facts
    head = struct.pack("<6q", *numbers)
    return zlib.crc32(times, zlib.crc32(head, body)) if times else zlib.crc32(head, body)


def encode(records: pa.Table) -> Iterator[tuple[slice, EncodedBatch]]:
    """Encode `records` (columns key, value, headers of APPEND_SCHEMA) in pieces of a bounded size.

    Gives the rows of `records` that are in each piece, and the piece.
    """
    values = _one_array(records.column("value"))
    keys = _one_array(records.column("key"))
    headers = _one_array(records.column("headers"))
    value_lengths, value_data, value_starts = _parts(values)
    key_lengths, key_data, key_starts = _parts(keys)
    sizes = value_lengths.clip(0).astype(np.int64) + key_lengths.clip(0)
    ends = np.cumsum(sizes)
    start, count = 0, len(values)
    while start < count:
        before = int(ends[start - 1]) if start else 0
        end = int(np.searchsorted(ends, before + _BATCH_BYTES_MAX, side="right"))
        end = min(max(end, start + 1), start + _BATCH_RECORDS_MAX, count)
        piece_headers = headers[start:end]
        has_keys = bool((key_lengths[start:end] >= 0).any())
        yield (
            slice(start, end),
            _encoded(
                value_lengths[start:end],
                value_data[value_starts[start] : value_starts[end]],
                key_lengths[start:end] if has_keys else None,
                key_data[key_starts[start] : key_starts[end]].tobytes() if has_keys else None,
                None if piece_headers.null_count == len(piece_headers) else _headers_bytes(piece_headers),
                int(ends[end - 1]) - before,
            ),
        )
        start = end


def _encoded(
    value_lengths: Lengths,
    data: npt.NDArray[np.uint8],
    key_lengths: Lengths | None,
    keys: bytes | None,
    headers: bytes | None,
    size: int,
) -> EncodedBatch:
    codec, values = _PLAIN, b""
    if len(data) >= _COMPRESS_FROM_BYTES:
        values = pa.compress(pa.py_buffer(data), codec="lz4_raw", asbytes=True)
        codec = _LZ4
    if codec == _PLAIN or len(values) > len(data) - len(data) // 8:
        codec, values = _PLAIN, data.tobytes()
    lengths = value_lengths.astype("<i4").tobytes()
    of_keys = None if key_lengths is None else key_lengths.astype("<i4").tobytes()
    checksum = zlib.crc32(values, zlib.crc32(lengths))
    for part in (of_keys, keys, headers):
        if part is not None:
            checksum = zlib.crc32(part, checksum)
    return EncodedBatch(len(value_lengths), size, codec, lengths, of_keys, headers, keys, values, checksum)


def _one_array(column: pa.ChunkedArray) -> pa.Array:
    combined = column.combine_chunks()
    if isinstance(combined, pa.ChunkedArray):
        combined = combined.chunk(0) if combined.num_chunks else pa.nulls(0, column.type)
    return combined


def _parts(array: pa.Array) -> tuple[Lengths, npt.NDArray[np.uint8], npt.NDArray[np.int32]]:
    """Return lengths (-1: NULL), the bytes, and where each value starts in them."""
    if array.null_count == len(array):
        return np.full(len(array), -1, np.int32), np.zeros(0, np.uint8), np.zeros(len(array) + 1, np.int32)
    nulls = array.is_null().to_numpy(zero_copy_only=False) if array.null_count else None
    if nulls is not None:
        array = pc.fill_null(array, b"")  # Arrow allows bytes under a NULL; they must not be stored
    buffers = array.buffers()
    starts = np.frombuffer(buffers[1], np.int32)[array.offset : array.offset + len(array) + 1]
    data = np.frombuffer(buffers[2], np.uint8) if buffers[2] is not None else np.zeros(0, np.uint8)
    lengths = np.diff(starts)
    if nulls is not None:
        lengths[nulls] = -1
    return lengths, data, starts


def _headers_bytes(headers: pa.Array) -> bytes:
    sink = pa.BufferOutputStream()
    batch = pa.record_batch([headers], names=["headers"])
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    stored: bytes = sink.getvalue().to_pybytes()
    return stored


def decode(row: Sequence[Any], place: str) -> Batch:
    """Return the batch stored in `row` (ROW_COLUMNS); IntegrityError naming `place` when it is damaged."""
    partition, first_offset, records, first_time, max_time, size, _stored, checksum, codec = row[:9]
    times, value_lengths, key_lengths, headers, keys, values = row[9:]
    found = zlib.crc32(values, zlib.crc32(value_lengths))
    for part in (key_lengths, keys, headers):
        if part is not None:
            found = zlib.crc32(part, found)
    if checksum != _checksum(found, partition, first_offset, records, first_time, max_time, codec, times):
        raise IntegrityError(
            f"{place}, partition {partition}, offsets {first_offset} to {first_offset + records - 1}: "
            "the checksum does not match, these records were damaged on disk",
            fix="keep the file, check the disk, and restore the log from a backup or load the records again",
        )
    if codec == _LZ4:
        values = pa.decompress(values, size - len(keys or b""), codec="lz4_raw")
    return Batch(
        partition,
        first_offset,
        records,
        first_time,
        None if times is None else np.frombuffer(times, np.int64),
        value_lengths,
        key_lengths,
        None if headers is None else _headers_array(headers),
        keys,
        values,
    )


def _headers_array(stored: bytes) -> pa.Array:
    with pa.ipc.open_stream(stored) as reader:
        column = _one_array(reader.read_all().column(0))
    return column.cast(_HEADERS)


def record_batches(batches: Sequence[Batch]) -> Iterator[pa.RecordBatch]:
    """Give `batches` as record batches of RECORD_SCHEMA, in their order, small ones joined."""
    group: list[Batch] = []
    size = 0
    for batch in batches:
        length = len(batch.values)
        if group and (length >= _CHUNK_BYTES or size >= _CHUNK_BYTES or size + length > _CHUNK_BYTES_MAX):
            yield _record_batch(group)
            group, size = [], 0
        group.append(batch)
        size += length
    if group:
        yield _record_batch(group)


def _record_batch(group: list[Batch]) -> pa.RecordBatch:
    counts = np.fromiter((batch.records for batch in group), np.int64, len(group))
    total = int(counts.sum())
    starts = np.cumsum(counts) - counts
    first_offsets = np.fromiter((batch.first_offset for batch in group), np.int64, len(group))
    partitions = np.fromiter((batch.partition for batch in group), np.int32, len(group))
    first_times = np.fromiter((batch.first_time for batch in group), np.int64, len(group))
    offsets = np.arange(total) + np.repeat(first_offsets - starts, counts)
    times = np.repeat(first_times, counts)
    for at, batch in zip(starts, group, strict=True):
        if batch.times is not None:
            times[at : at + batch.records] = batch.times
    value_lengths = _joined_lengths([batch.value_lengths for batch in group])
    values = _binary(value_lengths, [batch.values for batch in group])
    keys = pa.nulls(total, pa.binary())
    if any(batch.key_lengths is not None for batch in group):
        missing = np.full(int(counts.max()), -1, np.int32)
        key_lengths = _joined_lengths(
            [missing[: batch.records] if batch.key_lengths is None else batch.key_lengths for batch in group]
        )
        keys = _binary(key_lengths, [batch.keys for batch in group if batch.key_lengths is not None])
    headers = pa.nulls(total, _HEADERS)
    if any(batch.headers is not None for batch in group):
        headers = pa.concat_arrays(
            [pa.nulls(batch.records, _HEADERS) if batch.headers is None else batch.headers for batch in group]
        )
    columns = [
        pa.array(np.repeat(partitions, counts)),
        pa.array(offsets),
        pa.array(times).view(RECORD_SCHEMA.field("record_time").type),
        keys,
        values,
        headers,
    ]
    return pa.RecordBatch.from_arrays(columns, schema=RECORD_SCHEMA)


def _joined_lengths(parts: list[Any]) -> Lengths:
    return np.frombuffer(parts[0] if len(parts) == 1 else b"".join(parts), np.int32)


def _binary(lengths: Lengths, parts: list[Any]) -> pa.Array:
    """Return the binary array with these lengths (-1: NULL) over the joined `parts`."""
    offsets = np.zeros(len(lengths) + 1, np.int32)
    missing = lengths < 0
    validity = None
    if missing.any():
        validity = pa.py_buffer(np.packbits(~missing, bitorder="little"))
        lengths = np.where(missing, 0, lengths)
    np.cumsum(lengths, out=offsets[1:])
    data = parts[0] if len(parts) == 1 else b"".join(parts)
    return pa.Array.from_buffers(
        pa.binary(), len(lengths), [validity, pa.py_buffer(offsets), pa.py_buffer(data)]
    )
