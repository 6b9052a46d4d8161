"""Reads batches of a topic byte by byte, as they go over the wire: a client of ours unpacks them unseen.

By Kafka's protocol (https://kafka.apache.org/protocol): a Fetch request of version 4, batches of magic 2.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator

__all__ = ["CODECS", "fetch_codecs", "fetch_producers"]

CODECS = ("none", "gzip", "snappy", "lz4", "zstd")
"""By the number that stands in the lowest bits of a batch's attributes."""

_BYTES_MAX = 1 << 20
_CODEC_BITS = 0b111
_ATTRIBUTES_AT = 8 + 4 + 4 + 1 + 4
_PRODUCER_AT = _ATTRIBUTES_AT + 2 + 4 + 8 + 8


def fetch_codecs(broker: str, topic: str) -> list[str]:
    """Return how each batch of partition 0 is packed, from the first one on."""
    return [
        CODECS[struct.unpack_from(">h", batch, _ATTRIBUTES_AT)[0] & _CODEC_BITS]
        for batch in _batches(broker, topic)
    ]


def fetch_producers(broker: str, topic: str) -> list[tuple[int, int]]:
    """Return of each batch of partition 0 its producer's id and the number of its first record.

    By both a broker knows a batch that is sent again. Both are -1 where a producer is not idempotent.
    """
    found = [struct.unpack_from(">qhi", batch, _PRODUCER_AT) for batch in _batches(broker, topic)]
    return [(producer, first) for producer, _, first in found]


def _batches(broker: str, topic: str) -> Iterator[bytes]:
    name = topic.encode()
    asked = struct.pack(">hhih", 1, 4, 1, -1)  # Fetch, version 4, no client id
    asked += struct.pack(">iiiib", -1, 1_000, 1, _BYTES_MAX, 0)
    asked += struct.pack(">ih", 1, len(name)) + name + struct.pack(">iiqi", 1, 0, 0, _BYTES_MAX)
    host, _, port = broker.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=60) as connection:
        connection.sendall(struct.pack(">i", len(asked)) + asked)
        answer = _exactly(connection, struct.unpack(">i", _exactly(connection, 4))[0])
    # Correlation, throttling, one topic with its name, one partition and its number; then what went wrong,
    # both ends of the partition, aborted transactions, of which there are none, and the batches.
    at = 4 + 4 + 4 + 2 + len(name) + 4 + 4
    error, _, _, aborted, size = struct.unpack_from(">hqqii", answer, at)
    assert (error, max(aborted, 0)) == (0, 0)
    batches = answer[at + 26 : at + 26 + size]
    begin = 0
    while begin < len(batches):
        (length,) = struct.unpack_from(">i", batches, begin + 8)
        yield batches[begin : begin + 8 + 4 + length]
        begin += 8 + 4 + length


def _exactly(connection: socket.socket, size: int) -> bytes:
    found = b""
    while len(found) < size:
        part = connection.recv(size - len(found))
        assert part, "the broker closed the connection"
        found += part
    return found
