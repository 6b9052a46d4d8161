"""What every replica has to pass whose target has no room, takes no writes, or does not know who asks.

    class TestMyReadOnly(ReadOnlyTargetConformance):
        @pytest.fixture
        def target(self, tmp_path):
            return MyTarget(tmp_path)          # a ReadOnlyTarget, empty

Apart from `headrace.testing.replicas.ReplicaConformance`, because the target has to be one that a test can
bring into such a state.
"""

from __future__ import annotations

import dataclasses
import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import pytest

from headrace.errors import HeadraceError, RefusedError, TransientError
from headrace.replicate.options import CommonOptions
from headrace.replicate.protocol import Chunk, TableShape
from headrace.testing.pipeline_test import PipelineTest
from headrace.testing.replica_runs import catch_up, feed, following, shop, wait_for
from headrace.testing.replica_writes import FIRST, THINGS, chunk, opened, thing
from headrace.testing.replicas import START, ReplicaTarget, same

__all__ = [
    "FillableTarget",
    "FullTargetConformance",
    "GuardedTarget",
    "ReadOnlyTarget",
    "ReadOnlyTargetConformance",
    "WrongCredentialsConformance",
]

TABLES = ("all_rows", "totals")
ROWS = 20


class FillableTarget(ReplicaTarget, Protocol):
    """A target that a test can fill."""

    @contextmanager
    def full(self) -> Iterator[None]:
        """Let the target have no room during the block, and as much as before after it."""


class ReadOnlyTarget(ReplicaTarget, Protocol):
    """A target that a test can keep from being written to."""

    @contextmanager
    def read_only(self) -> Iterator[None]:
        """Let the target take no writes during the block, and go on giving what it holds."""


class GuardedTarget(ReplicaTarget, Protocol):
    """A target that writes down nothing for somebody it does not know."""

    def wrong_credentials(self) -> Mapping[str, Any]:
        """Return options with a wrong password, key or token in the place of the right one."""

    def secret_words(self) -> Sequence[str]:
        """Return what no message may hold: the right password, the wrong one, and what else is secret."""


class _Obstacle:
    """What the rules of this module share.

    `advice` is something that the error's fix says, where a subclass knows it; `null_keys` says whether a key
    may be NULL in the target; `shape` is the table that is written chunk by chunk.
    """

    advice = ""
    null_keys = True
    shape = THINGS

    @pytest.fixture
    def test(self, tmp_path: Path) -> Iterator[PipelineTest]:
        """A pipeline of which 20 events were read."""
        pipeline = shop(null_keys=self.null_keys)
        with PipelineTest(pipeline, folder=tmp_path / "pipeline", start=START) as test:
            feed(test, 0, 20)
            yield test

    def check(self, error: HeadraceError | None, options: CommonOptions, *words: str) -> None:
        """Assert that an error says what to do, and nothing that is secret."""
        assert isinstance(error, RefusedError), f"it is not for an operator: {error!r}"
        assert error.message
        assert error.fix
        assert self.advice in error.fix
        text = all_words(error)
        for word in (*revealed(options), *words):
            assert word not in text, "a secret is told"


class FullTargetConformance(_Obstacle):
    """The rules for a target that is full, as tests. A subclass gives the fixture `target`, empty."""

    def test_a_full_target_is_waited_for_and_nothing_is_lost_or_doubled(self, target: FillableTarget) -> None:
        write(target, self.shape, 1, 1)
        with target.full(), pytest.raises(TransientError) as raised:
            write(target, self.shape, 2, 3)
        assert self.advice in raised.value.fix
        write_on(target, self.shape)

    def test_a_follower_goes_on_when_there_is_room(self, test: PipelineTest, target: FillableTarget) -> None:
        with following(test, target.replica(tables=TABLES)) as follower:
            catch_up(follower)
            with target.full():
                many = [{"id": f"{i}-{secrets.token_hex(2_000)}", "seen": START, "n": i} for i in range(40)]
                test.send("events", many, at=START)
                test.run()
                follower.wake()
                wait_for(lambda: follower.state == "waiting", "the follower sees that there is no room")
                assert isinstance(follower.error, TransientError)
            catch_up(follower)
            same(test, target, TABLES)


class ReadOnlyTargetConformance(_Obstacle):
    """The rules for a target that takes no writes, as tests. A subclass gives the fixture `target`, empty."""

    def test_a_read_only_target_is_for_an_operator_and_nothing_is_lost_or_doubled(
        self, target: ReadOnlyTarget
    ) -> None:
        write(target, self.shape, 1, 1)
        with target.read_only():
            with pytest.raises(HeadraceError) as raised:
                write(target, self.shape, 2, 3)
            assert sorted(row["who"] for row in target.rows(self.shape.name)) == named(1, 1)
        self.check(raised.value, target.replica())
        write_on(target, self.shape)

    def test_a_follower_of_a_read_only_target_holds_nothing_up_and_goes_on_when_told(
        self, test: PipelineTest, target: ReadOnlyTarget
    ) -> None:
        options = target.replica(tables=TABLES)
        with following(test, options) as follower:
            catch_up(follower)
            with target.read_only():
                epoch = test.store.status().epoch
                feed(test, 20, 20)  # returns: the pipeline is not held up
                assert test.store.status().epoch > epoch
                follower.wake()
                wait_for(lambda: follower.state == "refused", "the follower sees that nothing is taken")
                self.check(follower.error, options)
                feed(test, 40, 20)
                assert follower.reached < test.store.status().epoch
            follower.resume()
            catch_up(follower)
            same(test, target, TABLES)


class WrongCredentialsConformance(_Obstacle):
    """The rules for a wrong password, as tests. A subclass gives the fixture `target`, empty."""

    def test_wrong_credentials_are_for_an_operator_and_no_secret_is_told(self, target: GuardedTarget) -> None:
        wrong = target.wrong_credentials()
        with pytest.raises(HeadraceError) as raised:
            write(target, self.shape, 1, 1, **wrong)
        self.check(raised.value, target.replica(**wrong), *target.secret_words())
        assert target.rows(self.shape.name) == []
        write_on(target, self.shape)

    def test_a_follower_with_wrong_credentials_holds_nothing_up_and_the_next_one_has_everything(
        self, test: PipelineTest, target: GuardedTarget
    ) -> None:
        with following(test, target.replica(tables=TABLES)) as follower:
            catch_up(follower)
        feed(test, 20, 20)
        wrong = target.replica(tables=TABLES, **target.wrong_credentials())
        with following(test, wrong) as follower:
            wait_for(lambda: follower.state == "refused", "the follower sees that it is not let in")
            self.check(follower.error, wrong, *target.secret_words())
            epoch = test.store.status().epoch
            feed(test, 40, 20)
            assert test.store.status().epoch > epoch
            with pytest.raises(RefusedError):
                catch_up(follower)
        with following(test, target.replica(tables=TABLES)) as follower:
            catch_up(follower)
            same(test, target, TABLES)


def write(target: ReplicaTarget, shape: TableShape, first: int, last: int, **options: Any) -> None:
    """Write these epochs of a table, with a writer of their own."""
    with opened(target, shape, **options) as writer:
        if shape.name not in writer.cursors():
            writer.take(shape.name, None, FIRST)
        for epoch in range(first, last + 1):
            writer.write(large(epoch, shape))


def write_on(target: ReplicaTarget, shape: TableShape) -> None:
    """Write what is missing of four epochs, and assert that each row is there, once."""
    with opened(target, shape) as writer:
        cursor = writer.cursors().get(shape.name)
    write(target, shape, 1 if cursor is None else cursor.position.epoch + 1, 4)
    assert sorted(row["who"] for row in target.rows(shape.name)) == named(1, 4)


def named(first: int, last: int) -> list[str]:
    """Return the keys of these epochs, in order."""
    return sorted(f"{epoch}-{number}" for epoch in range(first, last + 1) for number in range(ROWS))


def large(epoch: int, shape: TableShape) -> Chunk:
    """Rows of an epoch, too large for what may be left of a page of a disk, and not to be compressed."""
    rows = [thing(f"{epoch}-{i}", i, secrets.token_hex(2_000), epoch=epoch) for i in range(ROWS)]
    return chunk(rows, epoch=epoch, shape=shape)


def all_words(error: BaseException | None) -> str:
    """Return all that a journal could show of an error, and of those that it came from."""
    words = []
    while error is not None:
        words += [str(error), repr(error)]
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return "\n".join(words)


def revealed(options: CommonOptions) -> list[str]:
    """Return the secrets among a replica's options."""
    values = (getattr(options, field.name) for field in dataclasses.fields(options))
    return [value.reveal() for value in values if hasattr(value, "reveal")]
