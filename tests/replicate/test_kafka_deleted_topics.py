"""A topic of the Kafka replica that somebody deletes is filled anew: no row is missing in silence."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from confluent_kafka.admin import AdminClient, NewTopic
from json_targets import KafkaTarget

from headrace.errors import RefusedError, TransientError
from headrace.replicate.protocol import Position
from headrace.testing import PipelineTest
from headrace.testing.replica_runs import catch_up, feed, following, shop
from headrace.testing.replica_writes import FIRST, THINGS, chunk, opened, thing
from headrace.testing.replicas import START, same
from servers.guard import wait_until


@pytest.fixture
def target(kafka_broker: str) -> Iterator[KafkaTarget]:
    yield KafkaTarget(kafka_broker)


@pytest.fixture
def test(tmp_path: Path) -> Iterator[PipelineTest]:
    with PipelineTest(shop(), folder=tmp_path / "pipeline", start=START) as made:
        feed(made, 0, 40)
        yield made


def delete(target: KafkaTarget, topic: str, *, make_again: bool = False) -> None:
    admin = AdminClient({"bootstrap.servers": target.brokers})
    name = target.prefix + topic
    admin.delete_topics([name])[name].result(30)
    wait_until(lambda: name not in admin.list_topics(timeout=10).topics, what="it is gone", seconds=30)
    if make_again:
        admin.create_topics([NewTopic(name, 1, config={"cleanup.policy": "compact"})])[name].result(30)
        wait_until(lambda: name in admin.list_topics(timeout=10).topics, what="it is there", seconds=30)


@pytest.mark.parametrize("make_again", [False, True])
def test_a_topic_that_was_deleted_between_two_runs_is_filled_anew(
    test: PipelineTest, target: KafkaTarget, make_again: bool
) -> None:
    options = target.replica(tables=("totals", "all_rows"))
    with following(test, options) as follower:
        catch_up(follower)
    delete(target, "totals", make_again=make_again)
    with following(test, options) as follower:
        catch_up(follower)
        sent = {copy.shape.name: copy.rows_sent for copy in follower.copies}
    same(test, target, ("totals", "all_rows"))
    assert sent["totals"] > 0
    assert sent["all_rows"] == 0, "the topic that stayed was filled again"


@pytest.mark.parametrize("make_again", [False, True])
def test_a_topic_that_is_deleted_during_a_run_is_filled_anew_at_the_next_change(
    test: PipelineTest, target: KafkaTarget, make_again: bool
) -> None:
    with following(test, target.replica(tables=("totals",))) as follower:
        catch_up(follower)
        delete(target, "totals", make_again=make_again)
        feed(test, 40, 20)
        catch_up(follower)
        same(test, target, ("totals",))


def test_a_writer_sends_nothing_to_a_topic_that_was_made_again(target: KafkaTarget) -> None:
    shape = replace(THINGS, name="things")
    with opened(target, shape) as writer:
        writer.take("things", None, FIRST)
        writer.write(chunk([thing("ann", 1)], epoch=1, shape=shape))
        delete(target, "things", make_again=True)
        with pytest.raises(TransientError, match="was deleted"):
            writer.write(chunk([thing("bob", 1, epoch=2)], epoch=2, shape=shape))
    with opened(target, shape) as writer:
        assert writer.cursors()["things"] == FIRST, "nothing of it is copied"
    assert list(target.records("things")) == []


def test_a_topic_with_rows_of_which_no_cursor_tells_is_refused(target: KafkaTarget) -> None:
    shape = replace(THINGS, name="things")
    with opened(target, shape) as writer:
        writer.take("things", None, replace(FIRST, generation=5))
        fifth = replace(FIRST, generation=5)
        writer.write(chunk([thing("ann", 1, generation=5)], epoch=1, shape=shape, cursor=fifth))
        assert writer.cursors()["things"].position == Position.at(1)
    delete(target, "cursors")
    with opened(target, shape) as writer:
        with pytest.raises(RefusedError, match="says nothing of them") as raised:
            writer.take("things", None, FIRST)
        assert "delete the topic" in raised.value.fix


def test_a_writer_sends_nothing_once_the_cursors_are_not_those_by_which_it_is_shut_out(
    target: KafkaTarget,
) -> None:
    shape = replace(THINGS, name="things")
    with opened(target, shape) as old:
        old.take("things", None, FIRST)
        delete(target, "cursors")
        with opened(target, shape) as new:
            new.take("things", None, FIRST)
            with pytest.raises(TransientError, match="cursors' was deleted"):
                old.write(chunk([thing("ann", 1)], epoch=1, shape=shape))
            new.write(chunk([thing("bob", 1)], epoch=1, shape=shape))
    assert {row["who"] for row in target.rows("things")} == {"bob"}
