"""The Kafka replica passes what every replica has to pass, on a real broker."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from json_targets import KafkaTarget

from headrace.testing.replicas import ReplicaConformance
from servers.kafka import kafka_broker as own_broker


class TestKafka(ReplicaConformance):
    @pytest.fixture
    def target(self, kafka_broker: str, request: pytest.FixtureRequest) -> Iterator[KafkaTarget]:
        with ExitStack() as stack:
            if "target_that_is_down" in request.node.name:
                broker = stack.enter_context(own_broker())
                yield KafkaTarget(broker.bootstrap, broker)
            else:
                yield KafkaTarget(kafka_broker)

    test_a_column_of_another_type_is_refused_with_what_to_do = None  # a topic has no types
    test_a_hundred_thousand_rows_are_caught_up_in_bounded_chunks = None  # a million are, in the soak
