"""The Kafka replica on a real broker that asks for a password."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from json_targets import KafkaTarget

from headrace.errors import RefusedError
from headrace.operate.secrets import Secret
from headrace.testing.replica_writes import FIRST, THINGS, chunk, opened, thing
from servers.kafka import KafkaBroker
from servers.kafka import kafka_broker as own_broker

PASSWORD = "tops3cret"
WRONG = "wr0ng-secret"
LOGIN = "org.apache.kafka.common.security.plain.PlainLoginModule required"


@pytest.fixture
def guarded(kafka_here: None) -> Iterator[KafkaBroker]:
    properties = {
        "sasl.enabled.mechanisms": "PLAIN",
        "listener.name.plain.sasl.enabled.mechanisms": "PLAIN",
        "listener.name.plain.plain.sasl.jaas.config": f'{LOGIN} user_ada="{PASSWORD}";',
    }
    with own_broker(properties, listeners={"PLAIN": "SASL_PLAINTEXT"}) as broker:
        yield broker


def test_a_wrong_password_is_refused_in_words_that_hold_no_secret(guarded: KafkaBroker) -> None:
    target = KafkaTarget(guarded.bootstrap)

    def ada(password: str) -> dict[str, Any]:
        signing = {"sasl": "PLAIN", "user": "ada", "password": Secret(password)}
        return {"brokers": guarded.addresses["PLAIN"], **signing}

    with pytest.raises(RefusedError, match="password") as raised, opened(target, **ada(WRONG)):
        pass
    assert WRONG not in f"{raised.value}{raised.value.__cause__}{raised.value!r}"
    with opened(target, **ada(PASSWORD)) as writer:
        writer.take(THINGS.name, None, FIRST)
        writer.write(chunk([thing("ann", 1)], epoch=1))
    assert [row["who"] for row in target.rows(THINGS.name)] == ["ann"]
