"""Questions about offsets: what partitions hold."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from confluent_kafka import IsolationLevel, TopicPartition
from confluent_kafka.admin import OffsetSpec

from headrace.log.kafka.connection import Connection
from headrace.log.protocol import PartitionRange

__all__ = ["end_offsets", "offsets_at", "ranges"]


def ranges(connection: Connection, partitions: int) -> tuple[PartitionRange, ...]:
    """Return what the partitions hold, in the order of their numbers."""
    numbers = range(partitions)
    starts = _asked(connection, numbers, OffsetSpec.earliest(), committed=False)
    ends = _asked(connection, numbers, OffsetSpec.latest(), committed=False)
    return tuple(PartitionRange(number, starts[number], ends[number]) for number in numbers)


def end_offsets(
    connection: Connection, partitions: Iterable[int], *, committed: bool, topic: str | None = None
) -> Mapping[int, int]:
    """Return the next offset to be written of each partition; `committed`: before open transactions.

    Of the connection's topic, or of another one.
    """
    return _asked(connection, partitions, OffsetSpec.latest(), committed=committed, topic=topic)


def offsets_at(connection: Connection, partitions: Iterable[int], time_ms: int) -> dict[int, int]:
    """Return each partition's first offset with that record time or a later one, where there is one."""
    found = _asked(connection, partitions, OffsetSpec.for_timestamp(time_ms), committed=False)
    return {number: offset for number, offset in found.items() if offset >= 0}


def _asked(
    connection: Connection,
    partitions: Iterable[int],
    what: OffsetSpec,
    *,
    committed: bool,
    topic: str | None = None,
) -> dict[int, int]:
    topic = connection.settings.topic if topic is None else topic
    level = IsolationLevel.READ_COMMITTED if committed else IsolationLevel.READ_UNCOMMITTED
    wanted = {TopicPartition(topic, number): what for number in partitions}
    answers = connection.look(lambda: connection.admin.list_offsets(wanted, isolation_level=level))
    return {place.partition: answer.offset for place, answer in answers.items()}
