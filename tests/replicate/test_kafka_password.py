"""The Kafka replica on a real broker that asks for a password, and has rules of who may do what."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from confluent_kafka.admin import (
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
)
from json_targets import KafkaTarget

from headrace.errors import RefusedError
from headrace.operate.secrets import Secret
from headrace.replicate.kafka import KafkaReplica
from headrace.testing.replica_obstacles import WrongCredentialsConformance
from headrace.testing.replica_writes import FIRST, THINGS, chunk, opened, thing
from servers.guard import wait_until
from servers.kafka import KafkaBroker
from servers.kafka import kafka_broker as own_broker

PASSWORD = "tops3cret"
WRONG = "wr0ng-secret"
LOGIN = "org.apache.kafka.common.security.plain.PlainLoginModule required"


@pytest.fixture(scope="module")
def guarded(kafka_here: None) -> Iterator[KafkaBroker]:
    properties = {
        "sasl.enabled.mechanisms": "PLAIN",
        "listener.name.plain.sasl.enabled.mechanisms": "PLAIN",
        "listener.name.plain.plain.sasl.jaas.config": f'{LOGIN} user_ada="{PASSWORD}";',
        "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        "allow.everyone.if.no.acl.found": "true",
        "super.users": "User:ANONYMOUS",
    }
    with own_broker(properties, listeners={"PLAIN": "SASL_PLAINTEXT"}) as broker:
        yield broker


def ada(guarded: KafkaBroker, password: str = PASSWORD) -> dict[str, Any]:
    signing = {"sasl": "PLAIN", "user": "ada", "password": Secret(password)}
    return {"brokers": guarded.addresses["PLAIN"], **signing}


def allow(guarded: KafkaBroker, identity: str, pattern: ResourcePatternType, user: str = "User:ada") -> None:
    """Let a user, and who else has a rule, use transactional ids; return when the broker knows it."""
    admin = AdminClient({"bootstrap.servers": guarded.bootstrap})
    place = (ResourceType.TRANSACTIONAL_ID, identity, pattern)
    rules = [
        AclBinding(*place, user, "*", operation, AclPermissionType.ALLOW)
        for operation in (AclOperation.WRITE, AclOperation.DESCRIBE)
    ]
    for made in admin.create_acls(rules).values():
        made.result(30)
    every = AclBindingFilter(*place, user, None, AclOperation.ANY, AclPermissionType.ANY)
    wait_until(lambda: len(admin.describe_acls(every).result(20)) == 2, what="the broker knows them")


class GuardedTarget(KafkaTarget):
    """Topics that the replica comes to by a password; the test reads them without one."""

    def __init__(self, guarded: KafkaBroker) -> None:
        super().__init__(guarded.bootstrap)
        self._guarded = guarded

    def replica(self, **options: Any) -> KafkaReplica:
        return super().replica(**{**ada(self._guarded), **options})

    def wrong_credentials(self) -> dict[str, Any]:
        return {"password": Secret(WRONG)}

    def secret_words(self) -> tuple[str, ...]:
        return PASSWORD, WRONG


class TestKafkaPassword(WrongCredentialsConformance):
    advice = "password"

    @pytest.fixture
    def target(self, guarded: KafkaBroker) -> GuardedTarget:
        return GuardedTarget(guarded)


def test_a_user_who_may_not_use_the_transactional_ids_is_told_by_which_rule_one_may(
    guarded: KafkaBroker,
) -> None:
    target = KafkaTarget(guarded.bootstrap)
    name = f"headrace {target.prefix}"
    # As rules may have been made for a Headrace that had one id per table.
    allow(guarded, name + THINGS.name, ResourcePatternType.LITERAL)
    allow(guarded, name, ResourcePatternType.PREFIXED, user="User:eve")
    with opened(target, **ada(guarded)) as writer:
        with pytest.raises(RefusedError, match="transactional ids") as raised:
            writer.take(THINGS.name, None, FIRST)
        assert f"begin with '{name}'" in raised.value.fix
        assert "PREFIXED" in raised.value.fix
    allow(guarded, name, ResourcePatternType.PREFIXED)
    with opened(target, **ada(guarded)) as writer:
        writer.take(THINGS.name, None, FIRST)
        writer.write(chunk([thing("ann", 1)], epoch=1))
    assert [row["who"] for row in target.rows(THINGS.name)] == ["ann"]
