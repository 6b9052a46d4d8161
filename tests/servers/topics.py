"""Topics of random names for one test, gone when it is over."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from headrace.log.kafka import KafkaLog, KafkaSettings, open_kafka_log

if TYPE_CHECKING:
    from headrace.testing import VirtualClock

__all__ = ["KafkaTopics", "kafka_topics"]


class KafkaTopics:
    """Opens streams on Kafka with record times in a header, so that a test can say what time it is.

    The same `brokers` and `test` open the same topics, also in another process of the test.
    """

    def __init__(self, brokers: str, test: str, options: dict[str, Any] | None = None) -> None:
        self.brokers = brokers
        self.test = test
        self._options = options or {}

    def settings(self, stream: str, partitions: int | None = None) -> KafkaSettings:
        return KafkaSettings(
            brokers=self.brokers,
            topic=f"{stream}-{self.test}",
            partitions=partitions,
            **{"record_time": "header", **self._options},
        )

    def open_log(self, stream: str, partitions: int, clock: VirtualClock) -> KafkaLog:
        """What `PipelineTest` takes as its `open_log`."""
        return open_kafka_log(self.settings(stream, partitions), stream, clock=clock)

    def delete(self) -> None:
        """Delete them; what a broker that is gone held needs no care."""
        admin = AdminClient({"bootstrap.servers": self.brokers, "log_level": 0})
        try:
            mine = [name for name in admin.list_topics(timeout=10).topics if self.test in name]
            for done in admin.delete_topics(mine).values() if mine else ():
                done.result(10)
        except KafkaException:
            return


@contextmanager
def kafka_topics(brokers: str, **options: Any) -> Iterator[KafkaTopics]:
    """Give the topics of one test; `options` are those of `KafkaSettings`."""
    topics = KafkaTopics(brokers, uuid.uuid4().hex[:10], options)
    try:
        yield topics
    finally:
        topics.delete()
