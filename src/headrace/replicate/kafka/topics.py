"""The topics of a Kafka replica: made when absent, and read from end to end."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterable, Iterator, Mapping
from typing import Any

from confluent_kafka import Consumer, KafkaException, TopicCollection, TopicPartition
from confluent_kafka.admin import ConfigResource, NewTopic
from confluent_kafka.error import KafkaError

from headrace.errors import TransientError
from headrace.log.kafka.connection import Connection
from headrace.log.kafka.offsets import end_offsets

__all__ = ["OpenTransactionError", "ensure_topics", "identities", "policies", "record_at", "records_of"]

_READ_S = 40.0
_OPEN_S = 5.0
_POLL_S = 0.2
_SEEN_S = 10.0


class OpenTransactionError(TransientError):
    """A transaction has not ended; `partition` and `offset` say where its first record is."""

    def __init__(self, message: str, *, fix: str, partition: int, offset: int) -> None:
        super().__init__(message, fix=fix)
        self.partition = partition
        self.offset = offset


def ensure_topics(
    connection: Connection, wanted: Mapping[str, tuple[int, Mapping[str, str]]], replication: int | None
) -> Mapping[str, str]:
    """Make the topics that are not there: name -> (partitions, settings). Return the identity of each."""
    there = identities(connection, wanted)
    new = [
        NewTopic(name, partitions, replication or -1, config=dict(config))
        for name, (partitions, config) in wanted.items()
        if name not in there
    ]
    for asked in new:
        try:
            connection.ask(connection.admin.create_topics([asked]))
        except KafkaException as error:
            if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                raise connection.error_of(error.args[0]) from None
    end = time.monotonic() + _SEEN_S
    while len(there) < len(wanted):
        there = identities(connection, wanted)
        if time.monotonic() > end:
            raise connection.not_ready()
    return there


def identities(connection: Connection, names: Iterable[str]) -> dict[str, str]:
    """Return the identity of each topic that is there: another one once it was deleted and made again."""
    found = {}
    for name, asked in connection.admin.describe_topics(TopicCollection(list(names))).items():
        try:
            found[name] = str(connection.ask({name: asked})[name].topic_id)
        except KafkaException as error:
            if error.args[0].code() != KafkaError.UNKNOWN_TOPIC_OR_PART:
                raise connection.error_of(error.args[0]) from None
    return found


def policies(connection: Connection, names: Iterable[str]) -> dict[str, str]:
    """Return the cleanup.policy of each topic; without those of which the user may not ask."""
    asked = [ConfigResource(ConfigResource.Type.TOPIC, name) for name in names]
    found = {}
    for resource, answer in connection.admin.describe_configs(asked).items():
        try:
            found[resource.name] = str(connection.ask({resource: answer})[resource]["cleanup.policy"].value)
        except KafkaException as error:
            if error.args[0].code() != KafkaError.TOPIC_AUTHORIZATION_FAILED:
                raise connection.error_of(error.args[0]) from None
    return found


def records_of(connection: Connection, topic: str) -> Generator[Any, None, None]:
    """Give the committed records of a topic, up to its end as it is now, each partition in order.

    Raises OpenTransactionError when a transaction that began before has not ended: what was committed behind
    it is not to be seen, and who took what is seen for all would send it again.
    """
    consumer = _consumer(connection, "read_committed")
    try:
        yield from _read(connection, consumer, topic)
    except KafkaException as error:
        connection.raise_refused()
        raise connection.error_of(error.args[0]) from None
    finally:
        consumer.close()


def record_at(connection: Connection, topic: str, partition: int, offset: int) -> Any | None:
    """Return the first record from an offset on, also of an open transaction; None: there is none."""
    consumer = _consumer(connection, "read_uncommitted")
    try:
        consumer.assign([TopicPartition(topic, partition, offset)])
        end = time.monotonic() + _READ_S
        while time.monotonic() < end:
            message = consumer.poll(_POLL_S)
            if message is None:
                continue
            error = message.error()
            if error is None:
                return message
            if error.code() == KafkaError._PARTITION_EOF:
                break
            raise connection.error_of(error)
    except KafkaException as error:
        connection.raise_refused()
        raise connection.error_of(error.args[0]) from None
    finally:
        consumer.close()
    return None


def _consumer(connection: Connection, isolation: str) -> Consumer:
    made: Consumer = connection.made(
        Consumer,
        **{
            "group.id": "headrace-replica",  # never joined: partitions are assigned
            "isolation.level": isolation,
            "enable.auto.commit": False,
            "auto.offset.reset": "earliest",
            "enable.partition.eof": True,
        },
    )
    return made


def _read(connection: Connection, consumer: Consumer, topic: str) -> Iterator[Any]:
    partitions = consumer.list_topics(topic, timeout=8).topics[topic].partitions
    # With open transactions: to a consumer of committed records the topic ends before the first of them.
    found = end_offsets(connection, partitions, committed=False, topic=topic)
    ends = {partition: end for partition, end in found.items() if end}
    consumer.assign([TopicPartition(topic, partition, 0) for partition in ends])
    deadline, stands = time.monotonic() + _READ_S, dict.fromkeys(ends, 0)
    while ends:
        message = consumer.poll(_POLL_S)
        error = None if message is None else message.error()
        if message is not None and error is None:
            deadline = time.monotonic() + _READ_S
            yield message
        elif message is not None and error is not None and error.code() == KafkaError._PARTITION_EOF:
            if message.offset() >= ends.get(message.partition(), 0):
                ends.pop(message.partition(), None)
            else:  # what follows belongs to a transaction that is still open, or is behind one
                deadline = min(deadline, time.monotonic() + _OPEN_S)
                stands[message.partition()] = message.offset()
        elif error is not None:
            raise connection.error_of(error)
        elif time.monotonic() > deadline:
            what = f"{connection.place}: a transaction in '{topic}' has not ended"
            at = next(iter(ends))
            raise OpenTransactionError(what, fix="it is tried again", partition=at, offset=stands[at])
