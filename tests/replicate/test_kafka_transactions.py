"""Transactions of the Kafka replica: what others hold open, and what its own take."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException, Producer
from confluent_kafka.admin import AdminClient, NewTopic
from json_targets import KafkaTarget

from headrace.errors import ProfileError, RefusedError, TransientError
from headrace.replicate.kafka import topics, writer
from headrace.replicate.protocol import (
    Chunk,
    Cursor,
    Position,
    Refusal,
    ReplicaWriter,
    Task,
    write_chunks,
)
from headrace.testing.replica_writes import FIRST, THINGS, chunk, opened, thing
from servers.guard import wait_until

SHAPE = replace(THINGS, name="things")
OTHER = replace(THINGS, name="other")
BOTH = (SHAPE, OTHER)


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


@pytest.mark.parametrize(
    "whose",
    [
        "ours",
        "ours, in the gate",
        "ours, of a table that is no more",
        "another replica's, of a table that is not ours",
        "another store's",
        "nobody's",
    ],
)
def test_a_transaction_that_a_killed_run_left_open_is_ended_by_the_next_run_of_its_store_alone(
    target: KafkaTarget, monkeypatch: pytest.MonkeyPatch, whose: str
) -> None:
    monkeypatch.setattr(topics, "_OPEN_S", 0.5, raising=False)
    with opened(target, SHAPE) as first:
        first.take("things", None, FIRST)
        first.write(chunk([thing("ann", 1)], epoch=1, shape=SHAPE))
        name = first._id  # type: ignore[attr-defined]
    told = FIRST.facts() | {"writer": name}
    told |= {"store_id": "another-store"} if whose == "another store's" else {}
    told |= {"replica": "another"} if whose.startswith("another replica's") else {}
    told = {} if whose == "nobody's" else told
    dead = begun(target, f"headrace {target.prefix}things" if "gate" in whose else name)
    dead.produce(f"{target.prefix}things", b"{}", b"half", headers={writer.VERSION_HEADER: b"9"})
    table = b"gone" if "of a table" in whose else b"things"
    dead.produce(f"{target.prefix}cursors", json.dumps(told).encode(), table)
    dead.flush(30)
    if not whose.startswith("ours"):
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


class Killed(BaseException):
    """Ends a writer as a kill does."""


@pytest.mark.parametrize(
    "where",
    [
        pytest.param("before begin_transaction 1", marks=pytest.mark.soak),
        pytest.param("after begin_transaction 1", marks=pytest.mark.soak),
        pytest.param("after produce 1", marks=pytest.mark.soak),
        pytest.param("after produce 2", marks=pytest.mark.soak),  # the rows of both, and no cursor yet
        pytest.param("after produce 3", marks=pytest.mark.soak),
        pytest.param("before flush 1", marks=pytest.mark.soak),
        "before commit_transaction 1",
        "after commit_transaction 1",
    ],
)
def test_tables_written_together_are_there_all_or_none_wherever_the_writer_is_killed(
    target: KafkaTarget, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    when, word, number = where.split()
    calls: list[str] = []
    armed: list[bool] = []

    class Dying(Producer):
        def _do(self, called: str, *given: Any, **more: Any) -> Any:
            if "died" in calls:
                raise Killed  # nothing of what a living one would take back
            calls.append(called)
            last = bool(armed) and called == word and calls.count(word) == int(number)
            found = None
            if not last or when == "after":
                found = getattr(super(), called)(*given, **more)
            if last:
                calls.append("died")
                raise Killed
            return found

        def begin_transaction(self) -> None:
            self._do("begin_transaction")

        def produce(self, *given: Any, **more: Any) -> None:
            self._do("produce", *given, **more)

        def flush(self, *given: Any) -> Any:
            return self._do("flush", *given)

        def commit_transaction(self, *given: Any) -> None:
            self._do("commit_transaction", *given)

        def abort_transaction(self, *given: Any) -> None:
            self._do("abort_transaction", *given)

    def rows(epoch: int, cursor: Cursor) -> list[Chunk]:
        made = thing(f"u{epoch}", epoch, epoch=epoch, generation=cursor.generation)
        return [chunk([made], epoch=epoch, cursor=cursor, shape=shape) for shape in BOTH]

    def take(made: ReplicaWriter, generation: int) -> Cursor:
        """Take both tables, which have come equally far."""
        seen = made.cursors()
        for shape in BOTH:
            cursor = replace(seen.get(shape.name, FIRST), generation=generation)
            made.take(shape.name, seen.get(shape.name), cursor)
        return cursor

    with opened(target, *BOTH) as first:
        write_chunks(first, rows(1, take(first, 1)))
    with monkeypatch.context() as patch:
        patch.setattr(writer, "Producer", Dying)
        with opened(target, *BOTH) as second:
            cursor = take(second, 2)
            calls.clear()
            armed.append(True)
            with pytest.raises(Killed):
                write_chunks(second, rows(2, cursor))
    through = 2 if where == "after commit_transaction 1" else 1
    with opened(target, *BOTH) as third:
        cursor = take(third, 3)
        assert cursor.position == Position.at(through)
        for shape in BOTH:
            there = sorted(row["who"] for row in target.rows(shape.name))
            assert there == [f"u{epoch}" for epoch in range(1, through + 1)]
        write_chunks(third, rows(2, cursor))
        assert {each.position for each in third.cursors().values()} == {Position.at(2)}
    for shape in BOTH:
        assert sorted(row["who"] for row in target.rows(shape.name)) == ["u1", "u2"]


class Heeding(Producer):
    """Has learned what became of a record before the next one comes, and not been asked for it."""

    def produce(self, *given: Any, **more: Any) -> None:
        super().produce(*given, **more)
        wait_until(self._knows, what="the client knows that its transaction failed", seconds=60)

    def _knows(self) -> bool:
        try:
            self.begin_transaction()
        except KafkaException as error:
            return bool(error.args[0].code() != KafkaError._STATE)
        raise AssertionError("there was no transaction")


def test_a_writer_that_is_shut_out_between_two_records_does_not_take_that_for_something_that_passes(
    target: KafkaTarget, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened(target, SHAPE) as made, monkeypatch.context() as patch:
        patch.setattr(writer, "Producer", Heeding)
        wanted = chunk([thing("ann", 1), thing("bob", 1)], epoch=1, shape=SHAPE)
        with patch.context() as calm:
            calm.setattr(Heeding, "produce", Producer.produce)
            made.take("things", None, FIRST)
        begun(target, made._id).abort_transaction(30)  # type: ignore[attr-defined]
        with pytest.raises(RefusedError, match="taken over"):
            made.write(wanted)


def test_a_record_for_which_the_topic_is_too_small_is_told_with_its_topic_whatever_comes_behind_it(
    target: KafkaTarget, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = NewTopic(
        f"{target.prefix}things", 1, config={"cleanup.policy": "compact", "max.message.bytes": "2000"}
    )
    admin = AdminClient({"bootstrap.servers": target.brokers})
    admin.create_topics([small])[small.topic].result(30)
    with opened(target, *BOTH) as made, monkeypatch.context() as patch:
        patch.setattr(writer, "Producer", Heeding)
        with patch.context() as calm:
            calm.setattr(Heeding, "produce", Producer.produce)
            for shape in BOTH:
                made.take(shape.name, None, FIRST)
        large = thing("ann", 1, secrets.token_hex(10_000))
        with pytest.raises(RefusedError, match=f"'{small.topic}' takes smaller records") as raised:
            write_chunks(made, [chunk([large], shape=SHAPE), chunk([thing("ann", 1)], shape=OTHER)])
        assert "max.message.bytes" in raised.value.fix
    with opened(target, *BOTH) as again:
        seen = again.cursors()
        assert seen == dict.fromkeys(("things", "other"), FIRST)
        again.take("things", seen["things"], replace(FIRST, generation=2))
        again.write(chunk([thing("bob", 1)], cursor=replace(FIRST, generation=2), shape=SHAPE))
    assert {row["who"] for row in target.rows("things")} == {"bob"}, "what failed was taken back"


def test_a_writer_that_was_replaced_in_one_of_its_tables_says_in_which(target: KafkaTarget) -> None:
    with opened(target, *BOTH) as old, opened(target, *BOTH) as new:
        for shape in BOTH:
            old.take(shape.name, None, FIRST)
        new.take("other", FIRST, replace(FIRST, generation=2))
        with pytest.raises(RefusedError, match="taken over the replica's table 'other'"):
            write_chunks(old, [chunk([thing("ann", 1)], shape=shape) for shape in BOTH])


def test_a_writer_of_an_earlier_version_is_shut_out_though_its_cursors_name_none(target: KafkaTarget) -> None:
    with opened(target, SHAPE) as made:
        topic = made._identities[f"{target.prefix}things"]  # type: ignore[attr-defined]
    old = begun(target, f"headrace {target.prefix}things")
    told = json.dumps(FIRST.facts() | {"topic": topic}).encode()
    old.produce(f"{target.prefix}cursors", told, b"things")
    old.commit_transaction(30)
    with opened(target, SHAPE) as new:
        assert new.cursors() == {"things": FIRST}
        new.take("things", FIRST, replace(FIRST, generation=2))
    old.begin_transaction()
    old.produce(f"{target.prefix}things", b"{}", b"late", headers={writer.VERSION_HEADER: b"9"})
    with pytest.raises(KafkaException) as raised:
        old.commit_transaction(30)
    assert raised.value.args[0].code() in writer._FENCED


def test_rows_that_a_chunk_sets_aside_are_told_when_it_is_about_to_be_there_and_not_at_each_try(
    target: KafkaTarget,
) -> None:
    told: list[Refusal] = []
    task = Task(replica="copy", pipeline="tests", tables=BOTH, set_aside=told.extend, store_id=FIRST.store_id)
    chunks = [
        chunk([thing("ann", 1, "x" * 5000), thing("bob", 1)], shape=SHAPE),
        chunk([thing("ann", 1)], shape=OTHER),
    ]
    with closing(target.replica(record_bytes_max=2000).open(task)) as first:
        for shape in BOTH:
            first.take(shape.name, None, FIRST)
        begun(target, first._id).abort_transaction(30)  # type: ignore[attr-defined]
        with pytest.raises(RefusedError, match="taken over"):
            write_chunks(first, chunks)
    assert told == [], "nothing was written"
    with closing(target.replica(record_bytes_max=2000).open(task)) as second:
        second.cursors()
        write_chunks(second, chunks)
    assert [(refusal.table, "ann" in refusal.key) for refusal in told] == [("things", True)]
    assert {row["who"] for row in target.rows("things")} == {"bob"}


def test_tables_written_together_are_one_transaction(
    target: KafkaTarget, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[str] = []

    class Telling(Producer):
        def begin_transaction(self) -> None:
            begun.append("begin")
            super().begin_transaction()

    monkeypatch.setattr(writer, "Producer", Telling)
    with opened(target, *BOTH) as made:
        for shape in BOTH:
            made.take(shape.name, None, FIRST)
        begun.clear()
        write_chunks(made, [chunk([thing("ann", 1)], shape=shape) for shape in BOTH])
    assert begun == ["begin"]


@pytest.mark.parametrize(("allowed_ms", "wanted"), [(60_000, RefusedError), (0, TransientError)])
def test_a_transaction_that_took_too_long_is_tried_again_and_not_taken_for_another_process(
    target: KafkaTarget, monkeypatch: pytest.MonkeyPatch, allowed_ms: int, wanted: type[Exception]
) -> None:
    with opened(target, SHAPE) as made:
        made.take("things", None, FIRST)
        begun(target, made._id).abort_transaction(30)  # type: ignore[attr-defined]
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
