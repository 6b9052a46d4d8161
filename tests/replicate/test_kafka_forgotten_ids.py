"""The Kafka replica after its transactional id was not used for so long that the brokers forgot it."""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import Any

import pytest
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, Producer, TopicPartition
from json_targets import KafkaTarget

from headrace.errors import TransientError
from headrace.log.backoff import Waiting, when_ready
from headrace.replicate.kafka import writer
from headrace.testing.replica_writes import FIRST, THINGS, chunk, opened, thing
from servers.guard import wait_until
from servers.kafka import kafka_broker as own_broker

SHAPE = replace(THINGS, name="things")
SOON_FORGOTTEN = {
    "transactional.id.expiration.ms": "5000",
    "transaction.remove.expired.transaction.cleanup.interval.ms": "500",
}
STATES = "__transaction_state"


class Forgotten(Producer):
    """Is told at its first commit that the brokers do not know its transactional id."""

    told = False

    def commit_transaction(self, *given: Any) -> None:
        if not Forgotten.told:
            Forgotten.told = True
            raise KafkaException(KafkaError(KafkaError.INVALID_PRODUCER_ID_MAPPING))
        super().commit_transaction(*given)


def test_an_id_that_the_brokers_forgot_is_told_as_that_and_a_new_one_writes(
    kafka_broker: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = KafkaTarget(kafka_broker)
    with opened(target, SHAPE) as made:
        monkeypatch.setattr(Forgotten, "told", True)
        monkeypatch.setattr(writer, "Producer", Forgotten)
        made.take("things", None, FIRST)
        Forgotten.told = False
        two = chunk([thing("ann", 1), thing("bob", 1)], epoch=1, shape=SHAPE)
        with pytest.raises(TransientError, match=r"transactional\.id\.expiration\.ms.*forgotten"):
            made.write(two)
        made.write(two)
    assert sorted(row["who"] for row in target.rows("things")) == ["ann", "bob"]


@pytest.mark.soak
def test_a_replica_that_had_nothing_to_write_for_long_goes_on_with_a_new_id(kafka_here: None) -> None:
    stop, told = threading.Event(), list[Waiting | None]()
    with own_broker(SOON_FORGOTTEN) as broker:
        target = KafkaTarget(broker.bootstrap)
        with opened(target, SHAPE) as made:
            made.take("things", None, FIRST)
            first = chunk([thing("ann", 1), thing("bob", 1)], epoch=1, shape=SHAPE)
            when_ready(lambda: made.write(first), stop, told.append)
            identity: str = made._id  # type: ignore[attr-defined]
            wait_until(lambda: is_forgotten(broker.bootstrap, identity), what="the id is forgotten")
            told.clear()
            second = chunk([thing("ann", 2)], epoch=2, shape=SHAPE)
            when_ready(lambda: made.write(second), stop, told.append)
            assert made._id != identity  # type: ignore[attr-defined]
        assert len(list(target.records("things"))) == 3, "nothing is lost, and nothing there twice"
    assert told[0] is not None
    assert "forgotten" in told[0].error.message
    assert told[-1] is None


def is_forgotten(brokers: str, identity: str) -> bool:
    """Return whether the last that the brokers noted of a transactional id is that they forget it."""
    client = Consumer({"bootstrap.servers": brokers, "group.id": "tests", "enable.partition.eof": True})
    try:
        numbers = client.list_topics(STATES, timeout=10).topics[STATES].partitions
        client.assign([TopicPartition(STATES, number, OFFSET_BEGINNING) for number in numbers])
        found, ended = False, 0
        while ended < len(numbers):
            message = client.poll(20)
            assert message is not None, "the brokers gave no end"
            if message.error() is not None:
                ended += 1
            elif identity.encode() in message.key():
                found = message.value() is None
        return found
    finally:
        client.close()
