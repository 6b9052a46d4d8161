"""Transactions of the Kafka replica: what others hold open, and what its own take."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from confluent_kafka import KafkaException, Producer
from confluent_kafka.admin import AdminClient, NewTopic
from json_targets import KafkaTarget

from headrace.errors import ProfileError, RefusedError, TransientError
from headrace.replicate.kafka import topics, writer
from headrace.replicate.protocol import Position
from headrace.testing.replica_writes import FIRST, THINGS, chunk, opened, thing

SHAPE = replace(THINGS, name="things")


@pytest.fixture
def target(kafka_broker: str) -> Iterator[KafkaTarget]:
    yield KafkaTarget(kafka_broker)


def begun(target: KafkaTarget, name: str) -> Producer:
    made = Producer({"bootstrap.servers": target.brokers, "transactional.id": name})
    made.init_transactions(30)
    made.begin_transaction()
    return made


def test_a_cursor_behind_the_open_transaction_of_another_table_is_waited_for(
    target: KafkaTarget, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(topics, "_OPEN_S", 0.5, raising=False)
    with opened(target, SHAPE) as first:
        first.take("things", None, FIRST)
        other = begun(target, f"{target.prefix}other")
        other.produce(f"{target.prefix}cursors", b"{}", b"other")
        other.flush(30)
        first.write(chunk([thing("ann", 1)], epoch=1, shape=SHAPE))
    with opened(target, SHAPE) as second, pytest.raises(TransientError, match="has not ended"):
        second.cursors()
    other.abort_transaction(30)
    with opened(target, SHAPE) as third:
        assert third.cursors()["things"].position == Position.at(1)


@pytest.mark.parametrize("whose", ["ours", "another store's", "nobody's"])
def test_a_transaction_that_a_killed_run_left_open_is_ended_by_the_next_run_of_its_store_alone(
    target: KafkaTarget, monkeypatch: pytest.MonkeyPatch, whose: str
) -> None:
    monkeypatch.setattr(topics, "_OPEN_S", 0.5, raising=False)
    with opened(target, SHAPE) as first:
        first.take("things", None, FIRST)
        first.write(chunk([thing("ann", 1)], epoch=1, shape=SHAPE))
    store_id = {"ours": FIRST.store_id, "another store's": "another-store"}.get(whose)
    told = FIRST.facts() | {"store_id": store_id} if store_id else {}
    dead = begun(target, f"headrace {target.prefix}things")
    dead.produce(f"{target.prefix}things", b"{}", b"half", headers={writer.VERSION_HEADER: b"9"})
    dead.produce(f"{target.prefix}cursors", json.dumps(told).encode(), b"things")
    dead.flush(30)
    if whose != "ours":
        with opened(target, SHAPE) as second, pytest.raises(TransientError, match="has not ended"):
            second.cursors()
        dead.abort_transaction(30)  # nobody has ended it before
        return
    with opened(target, SHAPE) as second:
        (seen,) = second.cursors().values()
        assert seen.position == Position.at(1)
        later = replace(FIRST, generation=2, position=Position.at(1))
        second.take("things", seen, later)
        second.write(chunk([thing("bob", 2, epoch=2)], epoch=2, cursor=later, shape=SHAPE))
    with pytest.raises(KafkaException):
        dead.commit_transaction(30)
    assert {row["who"] for row in target.rows("things")} == {"ann", "bob"}


def test_the_topic_is_read_for_a_sweep_before_the_transaction_begins(
    target: KafkaTarget, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    read = writer.records_of

    def reading(connection: Any, topic: str) -> Any:
        done.append(f"read {topic.removeprefix(target.prefix)}")
        return read(connection, topic)

    class Telling(Producer):
        def begin_transaction(self) -> None:
            done.append("begin")
            super().begin_transaction()

    monkeypatch.setattr(writer, "records_of", reading)
    monkeypatch.setattr(writer, "Producer", Telling)
    with opened(target, SHAPE) as made:
        made.take("things", None, FIRST)
        made.write(chunk([thing("ann", 1), thing("bob", 2)], epoch=1, shape=SHAPE))
        done.clear()
        rows = [thing("ann", 3, epoch=2)]
        made.write(chunk(rows, epoch=2, shape=SHAPE, sweep_below=rows[0]["_version"]))
    assert done == ["read things", "begin"]
    assert {row["who"] for row in target.rows("things")} == {"ann"}


@pytest.mark.parametrize(("allowed_ms", "wanted"), [(60_000, RefusedError), (0, TransientError)])
def test_a_transaction_that_took_too_long_is_tried_again_and_not_taken_for_another_process(
    target: KafkaTarget, monkeypatch: pytest.MonkeyPatch, allowed_ms: int, wanted: type[Exception]
) -> None:
    with opened(target, SHAPE) as made:
        made.take("things", None, FIRST)
        begun(target, f"headrace {target.prefix}things").abort_transaction(30)
        monkeypatch.setattr(writer, "_TRANSACTION_MS", allowed_ms)
        with pytest.raises(wanted):
            made.write(chunk([thing("ann", 1)], epoch=1, shape=SHAPE))


def test_a_topic_that_deletes_old_rows_is_refused_where_rows_are_kept_by_key(target: KafkaTarget) -> None:
    name = f"{target.prefix}things"
    admin = AdminClient({"bootstrap.servers": target.brokers})
    admin.create_topics([NewTopic(name, 1, config={"cleanup.policy": "delete"})])[name].result(30)
    with pytest.raises(RefusedError, match="deletes old records") as raised, opened(target, SHAPE):
        pass
    assert "cleanup.policy=compact" in raised.value.fix
    with opened(target, SHAPE, mode="append"):
        pass


def test_a_table_whose_topic_would_be_that_of_the_cursors_or_of_another_one_is_refused(
    target: KafkaTarget,
) -> None:
    with pytest.raises(ProfileError, match="cursors"), opened(target, replace(THINGS, name="cursors")):
        pass
