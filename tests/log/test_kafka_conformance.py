"""The log on Kafka does what every log must do; on a real broker."""

import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from headrace.log.kafka import KafkaLog, KafkaSettings, open_kafka_log
from log.conformance import LogConformance

RECORD_BYTES_MAX = 16 * 1024 * 1024


@pytest.fixture
def open_log(kafka_broker: str) -> Iterator[Callable[..., KafkaLog]]:
    """Opens logs whose record times stand in a header, so that a test can say what time it is."""
    test = uuid.uuid4().hex[:10]
    made: set[str] = set()
    with ExitStack() as undo:

        def opened(name: str = "events", partitions: int | None = None, **options: Any) -> KafkaLog:
            settings = KafkaSettings(
                brokers=kafka_broker,
                topic=f"{name}-{test}",
                partitions=partitions or (None if name in made else 1),
                record_time="header",
                record_bytes_max=RECORD_BYTES_MAX,
            )
            made.add(name)
            log = open_kafka_log(settings, name, **options)
            undo.callback(log.close)
            return log

        yield opened


class TestKafka(LogConformance):
    own_clock = False
    keeps_empty_headers = False
