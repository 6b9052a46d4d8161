"""The dead-letter topics of a run: which streams have one, and who copies to them."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headrace.declare.words import did_you_mean
from headrace.errors import ProfileError, RefusedError
from headrace.operate.bindings import KafkaBinding, kafka_settings
from headrace.replicate.dead_letters import DeadLetterTarget, DeadLetterTopic

if TYPE_CHECKING:
    from headrace.log import Log
    from headrace.log.kafka import KafkaSettings
    from headrace.operate.journal import Journal
    from headrace.operate.project import Home, Project
    from headrace.store.reading import StoreReading

__all__ = ["DeadLetterTopics", "open_letters_topic", "streams_of_topics"]

_DEAD = ("malformed", "rejected", "future")
_DRAIN_S = 1.5
_DRAIN_CAUGHT_UP_S = 30.0
_HEADERS_BYTES = 64 * 1024
_RECORD_BYTES = 1_048_588


class DeadLetterTopics:
    """Copies of dead letters to topics, one for each topic. Nothing here may stop the pipeline."""

    def __init__(self, project: Project, store: StoreReading, journal: Journal) -> None:
        bound: dict[tuple[str, str], dict[str, KafkaBinding]] = {}
        for stream in project.pipeline.streams:
            binding = project.profile.stream(stream.name)
            if isinstance(binding, KafkaBinding) and binding.dead_letter_topic is not None:
                bound.setdefault((binding.brokers, binding.dead_letter_topic), {})[stream.name] = binding
        store_id = store.status().store_id if bound else ""
        self._followers = [
            DeadLetterTopic(
                DeadLetterTarget(
                    name=topic,
                    topics={stream: binding.topic or stream for stream, binding in streams.items()},
                    pipeline=project.pipeline.name,
                    store_id=store_id,
                    place_file=_place_file(project, brokers, topic),
                    open=_opener(streams, topic),
                ),
                store,
                tell=lambda event, why: journal.warning(event, why=why),
            )
            for (brokers, topic), streams in bound.items()
        ]

    def start(self) -> None:
        """Begin to copy."""
        for follower in self._followers:
            follower.start()

    def committed(self, outcomes: Iterable[Mapping[str, int]]) -> None:
        """Say what an epoch committed; called by the engine's thread, never waits."""
        if self._followers and any(each.get(name) for each in outcomes for name in _DEAD):
            for follower in self._followers:
                follower.wake()

    def stop(self, *, caught_up: bool) -> None:
        """Copy what is left, for a moment; after a run that caught up for as long as it may take."""
        deadline = time.monotonic() + (_DRAIN_CAUGHT_UP_S if caught_up else _DRAIN_S)
        for follower in self._followers:
            follower.close(max(0.0, deadline - time.monotonic()))

    def states(self) -> list[dict[str, Any]]:
        """Return how each stands, as plain values."""
        return [follower.facts() for follower in self._followers]


def _place_file(project: Project, brokers: str, topic: str) -> Path:
    """Return the file beside the store that says how far letters were copied to a topic."""
    whose = hashlib.sha256(f"{brokers} {topic}".encode()).hexdigest()[:16]
    return project.store_path.parent / f"dead-letters-{whose}.json"


def _opener(streams: dict[str, KafkaBinding], topic: str) -> Callable[[], Log]:
    stream, binding = next(iter(streams.items()))
    return partial(_open, binding, stream, topic)


def _open(binding: KafkaBinding, stream: str, topic: str) -> Log:
    from headrace.log.kafka import open_kafka_log

    settings = _settings(binding, stream, topic)
    # A new topic has one partition, and takes a letter of every record that its stream takes. One that
    # somebody made may be otherwise.
    limit = (binding.record_bytes_max or _RECORD_BYTES) + _HEADERS_BYTES
    try:
        return open_kafka_log(replace(settings, partitions=1, record_bytes_max=limit), stream)
    except RefusedError:
        return open_kafka_log(settings, stream)


def _settings(binding: KafkaBinding, stream: str, topic: str) -> KafkaSettings:
    settings = kafka_settings(binding, stream)
    return replace(
        settings,
        topic=topic,
        like=settings.topic,
        partitions=None,
        retention=None,
        record_time="log",
        record_bytes_max=None,
        group=None,
    )


def open_letters_topic(home: Home, topic: str, stream: str | None) -> Log:
    """Open a topic that holds dead letters, on the brokers of `stream` or of the stream that names it.

    Raises ProfileError when it is not clear whose brokers are meant.
    """
    bindings = {
        name: binding for name, binding in home.profile.streams.items() if isinstance(binding, KafkaBinding)
    }
    if stream is not None:
        chosen = {name: each for name, each in bindings.items() if name == stream}
    else:
        chosen = {
            name: each for name, each in bindings.items() if each.dead_letter_topic == topic
        } or bindings
    if not chosen or len({each.brokers for each in chosen.values()}) > 1:
        known = [each.dead_letter_topic for each in bindings.values() if each.dead_letter_topic]
        raise ProfileError(
            f"profile '{home.profile.name}' does not say on which brokers the topic '{topic}' is"
            f"{did_you_mean(topic, known)}",
            fix="name a stream that is bound to Kafka with --stream, and its --profile",
        )
    name, binding = next(iter(chosen.items()))
    return _open(binding, name, topic)


def streams_of_topics(home: Home) -> dict[str, str]:
    """Return which stream each topic is, for letters that carry only Kafka Connect's headers."""
    return {
        binding.topic or name: name
        for name, binding in home.profile.streams.items()
        if isinstance(binding, KafkaBinding)
    }
