"""Which partition a key belongs to: the rule of Kafka's own clients, so moving to Kafka keeps partitions.

The hash is murmur2 as in `org.apache.kafka.common.utils.Utils.murmur2`, the partition is
`(hash & 0x7fffffff) % partitions` as in its default partitioner.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa

__all__ = ["murmur2", "partitions_of"]

_SEED = 0x9747B28C
_M = np.uint32(0x5BD1E995)
_KEY_BYTES_AT_ONCE = 1 << 20


def murmur2(keys: pa.Array) -> npt.NDArray[np.uint32]:
    """Return the hash of every key in `keys` (binary, no NULLs).

    Keys of one length are hashed together, word by word, so the cost is per byte of the longest key and not
    per key.
    """
    buffers = keys.buffers()
    offsets = np.frombuffer(buffers[1], np.int32)[keys.offset : keys.offset + len(keys) + 1]
    data = np.frombuffer(buffers[2], np.uint8) if buffers[2] is not None else np.zeros(0, np.uint8)
    starts, lengths = offsets[:-1].astype(np.int64), np.diff(offsets)
    hashes = np.empty(len(keys), np.uint32)
    for length in np.unique(lengths):
        members = np.flatnonzero(lengths == length)
        step = max(1, _KEY_BYTES_AT_ONCE // max(1, int(length)))
        for at in range(0, len(members), step):
            some = members[at : at + step]
            hashes[some] = _murmur2_of_length(data, starts[some], int(length))
    return hashes


def _murmur2_of_length(
    data: npt.NDArray[np.uint8], starts: npt.NDArray[np.int64], length: int
) -> npt.NDArray[np.uint32]:
    hashes = np.full(len(starts), (_SEED ^ length) & 0xFFFFFFFF, np.uint32)
    if length == 0:
        return _finish(hashes)
    keys = data[starts[:, None] + np.arange(length)]
    words = length // 4
    if words:
        table = np.ascontiguousarray(keys[:, : words * 4]).view("<u4")
        for at in range(words):
            k = table[:, at] * _M
            k ^= k >> np.uint32(24)
            hashes = (hashes * _M) ^ (k * _M)
    tail = keys[:, words * 4 :].astype(np.uint32)
    if tail.shape[1]:
        for at in range(tail.shape[1]):
            hashes ^= tail[:, at] << np.uint32(8 * at)
        hashes = hashes * _M
    return _finish(hashes)


def _finish(hashes: npt.NDArray[np.uint32]) -> npt.NDArray[np.uint32]:
    hashes = hashes ^ (hashes >> np.uint32(13))
    hashes = hashes * _M
    return hashes ^ (hashes >> np.uint32(15))


def partitions_of(keys: pa.Array, partitions: int) -> npt.NDArray[np.int32]:
    """Return the partition of every key in `keys` (binary, no NULLs)."""
    if partitions == 1 or len(keys) == 0:
        return np.zeros(len(keys), np.int32)
    # Streams have far fewer keys than records: each distinct one is hashed once.
    distinct = keys.dictionary_encode()
    positive = (murmur2(distinct.dictionary) & np.uint32(0x7FFFFFFF)).astype(np.int64)
    of_key = (positive % partitions).astype(np.int32)
    indices: npt.NDArray[np.int32] = distinct.indices.to_numpy(zero_copy_only=False)
    return of_key[indices]
