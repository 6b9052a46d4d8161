"""The topic of a log: made when it is absent, checked when it is there."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

from confluent_kafka import KafkaError, KafkaException, TopicCollection
from confluent_kafka.admin import (
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewPartitions,
    NewTopic,
    ResourceType,
)

from headrace.declare.durations import format_duration
from headrace.errors import IntegrityError, RefusedError
from headrace.log.kafka.connection import Connection

__all__ = ["Topic", "ask_for", "look_at", "open_topic", "require_same"]

_PARTITIONS = 3
_RETENTION = timedelta(hours=24)
_FOR_EVER = -1
_AGES_MS = 1000 * 365 * 24 * 60 * 60 * 1000
"""Who writes more means for ever, too: the largest number that there is, for instance."""
_SEEN_S_MAX = 10.0
_PAUSE_S = 0.05


@dataclass(frozen=True)
class Topic:
    """What the cluster says of a topic. `identity` changes when it is deleted and made again.

    record_bytes_max  its max.message.bytes, as it was when the topic was opened
    creation_times    whether its records have the times of their producers, as it was then
    """

    identity: str
    partitions: int
    replication: int
    record_bytes_max: int = 0
    creation_times: bool = False


def ask_for(connection: Connection, topic: str | None = None) -> Callable[[], Topic | None]:
    """Ask for the topic, or for another one; what is returned waits for the answer: None: it is not there."""
    name = topic or connection.settings.topic

    def question() -> Any:
        return connection.admin.describe_topics(TopicCollection([name]))

    asked, futures = connection.admin, question()

    def answer() -> Topic | None:
        try:
            found = connection.ask(futures, asked=asked, again=question)[name]
        except KafkaException as error:
            if error.args[0].code() == KafkaError.UNKNOWN_TOPIC_OR_PART:
                return None
            raise connection.error_of(error.args[0]) from None
        copies = [len(partition.replicas) for partition in found.partitions]
        return Topic(str(found.topic_id), len(found.partitions), min(copies, default=0))

    return answer


def look_at(connection: Connection) -> Topic | None:
    """Return the topic; None when it is not there."""
    return ask_for(connection)()


def open_topic(
    connection: Connection, *, make: bool = True, lane: bool = False
) -> tuple[Topic, tuple[str, ...]]:
    """Return the topic, made as the settings say when it is absent, and warnings about it.

    With `make` False nothing is made or changed. A `lane` is ours: where it keeps its records for too short,
    that is changed. Raises RefusedError when the topic is absent and not to be made, or when it is there and
    differs from what the settings ask for.
    """
    topic = look_at(connection)
    if topic is None:
        if not make:
            raise RefusedError(
                f"{connection.place}: there is no such topic yet",
                fix="start the pipeline or a producer: they make it",
            )
        topic = _made(connection)
    asked = connection.settings.partitions
    if make and asked is not None and asked > topic.partitions:
        _grow(connection, asked)
        topic = _seen(connection, asked)
    has = _config(connection, connection.settings.topic)
    warnings = _checked(connection, topic, has)
    if make and lane:
        warnings += _keep_longer(connection, has)
    known = replace(
        topic,
        record_bytes_max=int(has["max.message.bytes"]),
        creation_times=has["message.timestamp.type"] == "CreateTime",
    )
    return known, warnings


def _made(connection: Connection) -> Topic:
    settings = connection.settings
    beside = None if settings.like is None else ask_for(connection, settings.like)()
    config = {
        "message.timestamp.type": "LogAppendTime",
        "compression.type": _codec(settings.compression or "lz4"),
    }
    if settings.compacted:
        config["cleanup.policy"] = "compact"
    elif settings.retention is None and settings.like is not None and beside is not None:
        config["retention.ms"] = _config(connection, settings.like)["retention.ms"]
    else:
        retention = settings.retention or _RETENTION
        config["retention.ms"] = str(retention // timedelta(milliseconds=1))
    if settings.record_bytes_max is not None:
        config["max.message.bytes"] = str(settings.record_bytes_max)
    partitions = settings.partitions or _PARTITIONS
    replication = settings.replication or (-1 if beside is None else beside.replication)
    new = NewTopic(settings.topic, partitions, replication, config=config)
    try:
        connection.ask(connection.admin.create_topics([new]))
    except KafkaException as error:
        if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
            raise connection.error_of(error.args[0]) from None
        return _seen(connection, 1)  # another process was faster, and it may have asked for fewer
    return _seen(connection, partitions)


def _grow(connection: Connection, partitions: int) -> None:
    try:
        connection.ask(
            connection.admin.create_partitions([NewPartitions(connection.settings.topic, partitions)])
        )
    except KafkaException as error:
        if error.args[0].code() != KafkaError.INVALID_PARTITIONS:
            raise connection.error_of(error.args[0]) from None


def _seen(connection: Connection, partitions: int) -> Topic:
    """Return the topic when every broker's metadata may know it: a change takes a moment to spread."""
    end = time.monotonic() + _SEEN_S_MAX
    while time.monotonic() < end:
        topic = look_at(connection)
        if topic is not None and topic.partitions >= partitions:
            return topic
        time.sleep(_PAUSE_S)
    raise connection.not_ready()


def _checked(connection: Connection, topic: Topic, has: Mapping[str, str]) -> tuple[str, ...]:
    settings, place = connection.settings, connection.place
    if settings.partitions is not None and settings.partitions < topic.partitions:
        raise RefusedError(
            f"{place}: the topic has {topic.partitions} partitions, asked for {settings.partitions}: "
            "none can be taken away",
            fix=f"set partitions = {topic.partitions} in the profile, or use another topic",
        )
    if settings.replication is not None and settings.replication != topic.replication:
        raise _differs(place, "replication", str(topic.replication), str(settings.replication))
    warnings = []
    if has["message.timestamp.type"] == "CreateTime" and settings.record_time == "log":
        warnings.append(
            f"{place}: record times are set by producers (CreateTime); windows may close early when one of "
            "them is slow or its clock is wrong. `kafka-configs --alter --add-config "
            "message.timestamp.type=LogAppendTime` mends that for new records"
        )
    if settings.retention is not None:
        asked = settings.retention // timedelta(milliseconds=1)
        if int(has["retention.ms"]) != asked:
            raise _differs(
                place, "retention", _length(int(has["retention.ms"])), format_duration(settings.retention)
            )
    if settings.compression is not None and has["compression.type"] not in (
        "producer",
        _codec(settings.compression),
    ):
        raise _differs(place, "compression", has["compression.type"], settings.compression)
    limit = settings.record_bytes_max
    if limit is not None and int(has["max.message.bytes"]) < limit:
        raise _differs(place, "record_bytes_max", has["max.message.bytes"], str(limit))
    return tuple(warnings)


def _keep_longer(connection: Connection, has: Mapping[str, str]) -> tuple[str, ...]:
    """Let a lane keep its records as long as its stream does, or for ever; what keeps them longer stays.

    One that an earlier version made has a day. Its records may have no key, so it is not compacted now.
    Returns a warning when the brokers do not let us.
    """
    settings = connection.settings
    if settings.like is None or has["cleanup.policy"] == "compact":
        return ()
    held = int(has["retention.ms"])
    needed = _FOR_EVER if settings.compacted else int(_config(connection, settings.like)["retention.ms"])
    if held < 0 or 0 <= needed <= held:
        return ()
    entry = ConfigEntry("retention.ms", str(needed), incremental_operation=AlterConfigOpType.SET)
    resource = ConfigResource(ResourceType.TOPIC, settings.topic, incremental_configs=[entry])
    try:
        connection.ask(connection.admin.incremental_alter_configs([resource]))
    except KafkaException as error:
        return (
            f"{connection.place}: the topic has retention {_length(held)} and needs {_length(needed)}: what "
            "is not read by then is lost, and `--rebuild` finds less. The brokers do not let us change it "
            f"({error.args[0].name()}): `kafka-configs --alter --entity-type topics --entity-name "
            f"{settings.topic} --add-config retention.ms={needed}` mends that",
        )
    return ()


def _length(milliseconds: int) -> str:
    if not 0 <= milliseconds <= _AGES_MS:
        return "for ever"
    return format_duration(timedelta(milliseconds=milliseconds))


def _differs(place: str, option: str, has: str, asked: str) -> RefusedError:
    return RefusedError(
        f"{place}: the topic has {option} {has}, the profile asks for {asked}",
        fix=f"take `{option}` out of the profile, set it to the topic's, or alter the topic",
    )


def _config(connection: Connection, topic: str) -> dict[str, str]:
    resource = ConfigResource(ResourceType.TOPIC, topic)

    answers = connection.look(lambda: connection.admin.describe_configs([resource]))
    return {name: str(entry.value) for name, entry in answers[resource].items()}


def _codec(compression: str) -> str:
    return "uncompressed" if compression == "none" else compression


def require_same(place: str, topic: Topic, now: Topic | None) -> Topic:
    """Return the topic as it is `now`. Raises IntegrityError when it is gone or another one."""
    if now is None or now.identity != topic.identity:
        raise IntegrityError(
            f"{place}: the topic was deleted" + ("" if now is None else " and made again"),
            fix="its positions mean nothing any more: start with a new store, or bring the old topic back",
        )
    return replace(now, record_bytes_max=topic.record_bytes_max, creation_times=topic.creation_times)
