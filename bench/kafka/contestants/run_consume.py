"""The consume-only loop: take every record and touch its value. Nothing in Python on Kafka can be faster."""

from __future__ import annotations

from marks import TASK, batches, begin, end


def consume(stream: dict) -> int:
    """Read a topic from start to end, return the bytes of its values."""
    size = 0
    for messages in batches(stream, "consume"):
        for message in messages:
            size += len(message.value())
    return size


consume(TASK["warm"])
begin()
size = consume(TASK["stream"])
end(bytes=size)
