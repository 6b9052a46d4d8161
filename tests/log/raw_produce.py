"""Writes one record to a topic byte by byte, as no client of ours would: its header's name may be anything.

By Kafka's protocol (https://kafka.apache.org/protocol): a Produce request of version 7, a batch of magic 2.
"""

from __future__ import annotations

import socket
import struct
import time

__all__ = ["produce_raw"]

_CRC32C = 0x82F63B78


def _crc32c(data: bytes) -> int:
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (_CRC32C if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def _varint(number: int) -> bytes:
    zigzag, out = number << 1 ^ number >> 63, bytearray()
    while zigzag > 127:
        out.append(zigzag & 127 | 128)
        zigzag >>= 7
    return bytes([*out, zigzag])


def _sized(data: bytes) -> bytes:
    return _varint(len(data)) + data


def produce_raw(broker: str, topic: str, value: bytes, header: tuple[bytes, bytes]) -> None:
    """Append one record to partition 0 and wait until the broker has it."""
    now = time.time_ns() // 1_000_000
    no_key = _varint(-1)
    record = (
        b"\0" + _varint(0) + _varint(0) + no_key + _sized(value) + _varint(1) + b"".join(map(_sized, header))
    )
    body = struct.pack(">hiqqqhii", 0, 0, now, now, -1, -1, -1, 1) + _sized(record)
    batch = struct.pack(">ibI", -1, 2, _crc32c(body)) + body
    batch = struct.pack(">qi", 0, len(batch)) + batch
    name = topic.encode()
    asked = struct.pack(">hhihhhii", 0, 7, 1, -1, -1, 1, 30_000, 1)
    asked += struct.pack(">h", len(name)) + name + struct.pack(">iii", 1, 0, len(batch)) + batch
    host, _, port = broker.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=60) as connection:
        connection.sendall(struct.pack(">i", len(asked)) + asked)
        answer = connection.recv(4096)
    # Size and correlation, one topic with its name, one partition and its number: then what went wrong, or 0.
    (error,) = struct.unpack_from(">h", answer, 4 + 4 + 4 + 2 + len(name) + 4 + 4)
    assert error == 0
