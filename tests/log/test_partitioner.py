from __future__ import annotations

import random

import numpy as np
import pyarrow as pa
import pytest

from headrace.log.partitioner import murmur2, partitions_of

# From Kafka's own test of its hash (clients, UtilsTest.testMurmur2).
KAFKA_VECTORS = {
    b"21": -973932308,
    b"foobar": -790332482,
    b"a-little-bit-long-string": -985981536,
    b"a-little-bit-longer-string": -1486304829,
    b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8": -58897971,
    b"abc": 479470107,
}


def murmur2_by_the_book(key: bytes) -> int:
    mask, m = 0xFFFFFFFF, 0x5BD1E995
    h = (0x9747B28C ^ len(key)) & mask
    for at in range(0, len(key) // 4 * 4, 4):
        k = int.from_bytes(key[at : at + 4], "little") * m & mask
        k = (k ^ k >> 24) * m & mask
        h = (h * m & mask) ^ k
    tail = key[len(key) // 4 * 4 :]
    if tail:
        h = (h ^ int.from_bytes(tail, "little")) * m & mask
    h = (h ^ h >> 13) * m & mask
    return h ^ h >> 15


@pytest.mark.parametrize("key", list(KAFKA_VECTORS))
def test_the_hash_is_kafkas(key: bytes) -> None:
    assert murmur2(pa.array([key])).view(np.int32)[0] == KAFKA_VECTORS[key]


def test_many_keys_hash_as_one_by_one() -> None:
    chance = random.Random(7)
    keys = [chance.randbytes(chance.randrange(40)) for _ in range(3000)] + [b"", chance.randbytes(5000)]
    array = pa.array([b"in front", *keys])[1:]
    assert murmur2(array).tolist() == [murmur2_by_the_book(key) for key in keys]


def test_a_partition_is_the_positive_hash_modulo_their_number() -> None:
    keys = [b"user_%d" % at for at in range(500)] * 2
    expected = [(murmur2_by_the_book(key) & 0x7FFFFFFF) % 7 for key in keys]
    assert partitions_of(pa.array(keys), 7).tolist() == expected
    assert partitions_of(pa.array([], pa.binary()), 7).tolist() == []
