"""What a replica costs while its target is away, and while it has more to copy than it can at once."""

from __future__ import annotations

import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from targets import FilesTarget

from headrace.blueprints import write_project
from headrace.errors import TransientError
from headrace.log.backoff import when_ready
from headrace.operate import Runtime, load_project
from headrace.replicate.elasticsearch import ElasticsearchReplica
from headrace.replicate.options import CommonOptions
from headrace.replicate.protocol import Chunk, ReplicaWriter, Task
from headrace.replicate.webhook import WebhookReplica
from headrace.store.reading import StoreReading
from headrace.testing.pipeline_test import PipelineTest
from headrace.testing.replica_runs import Kept, catch_up, feed, following, shop, wait_for
from headrace.testing.replica_writes import THINGS
from headrace.testing.replicas import START, same

LONG = timedelta(hours=1)


class Around:
    """A replica whose opening and writing are told of first; `opening` may raise."""

    def __init__(
        self,
        options: CommonOptions,
        *,
        opening: Callable[[], None] = lambda: None,
        writing: Callable[[Chunk], None] = lambda chunk: None,
    ) -> None:
        self.options, self.opening, self.writing = options, opening, writing

    def __getattr__(self, name: str) -> Any:
        return getattr(self.options, name)

    def open(self, task: Task) -> ReplicaWriter:
        self.opening()
        writer = self.options.open(task)  # type: ignore[attr-defined]
        write = writer.write

        def told(chunk: Chunk) -> None:
            self.writing(chunk)
            write(chunk)

        writer.write = told
        return writer  # type: ignore[no-any-return]


def away(tries: int) -> Callable[[], None]:
    """Fail so many times."""
    left = [tries]

    def opening() -> None:
        if left[0]:
            left[0] -= 1
            raise TransientError("the target is away")

    return opening


@pytest.fixture
def test(tmp_path: Path) -> Iterator[PipelineTest]:
    with PipelineTest(shop(), folder=tmp_path / "pipeline", start=START) as test:
        feed(test, 0, 40)
        yield test


@pytest.fixture
def target(tmp_path: Path) -> FilesTarget:
    return FilesTarget(tmp_path / "target")


def test_the_store_is_not_read_for_a_target_that_is_away(
    test: PipelineTest, target: FilesTarget, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, before = list[str](), list[int]()
    reading, is_away = StoreReading.snapshot, away(2)

    @contextmanager
    def noted(store: StoreReading) -> Iterator[Any]:
        if threading.current_thread().name == "headrace-replica-copy":
            read.append("read")
        with reading(store) as cursor:
            yield cursor

    def opening() -> None:
        before.append(len(read))
        is_away()

    monkeypatch.setattr(StoreReading, "snapshot", noted)
    told = Kept()
    options: Any = Around(target.replica(), opening=opening)
    with following(test, options, told=told):
        wait_for(lambda: told.states[-1:] == ["following"], "the target is there")
        assert told.states == ["starting", "waiting", "starting", "following"], "each try was told of"
        assert before == [1, 1, 1], "before the target answered, the store was asked once who it is"
        assert len(read) > 1
    same(test, target)


def test_a_run_says_once_that_a_target_is_away_and_once_that_it_is_back(tmp_path: Path) -> None:
    folder = tmp_path / "shop"
    write_project("commerce", folder)
    (folder / "headrace.toml").write_text(
        '[profiles.local]\npage.serve = "off"\nreplicas.copy = { kind = "files", path = "changes/" }\n'
    )
    runtime = Runtime.open(load_project(folder))
    try:
        notices: list[str] = []
        runtime.replicas.on_notice = notices.append
        (follower,) = runtime.replicas.followers
        options: Any = Around(follower.options, opening=away(2))
        follower.options = options
        runtime.replicas.start()
        wait_for(lambda: follower.state == "following", "the target is there")
        runtime.replicas.stop()
    finally:
        runtime.close()
    assert notices == ["replica 'copy' waiting: the target is away", "replica 'copy' goes on"]


def test_a_replica_that_catches_up_after_an_outage_says_that_it_does(
    test: PipelineTest, target: FilesTarget
) -> None:
    taken, goes_on = threading.Semaphore(0), threading.Semaphore(0)
    failing = away(1)

    def writing(chunk: Chunk) -> None:
        failing()  # the target lets us in, and takes nothing
        taken.release()
        assert goes_on.acquire(timeout=60)

    told = Kept()
    options: Any = Around(target.replica(tables=("all_rows",), chunk_rows_max=10), writing=writing)
    with following(test, options, told=told) as follower:
        for _ in range(2):  # the second chunk comes when the first one is durable
            assert taken.acquire(timeout=60)
            if told.states[-1] == "waiting":
                assert isinstance(follower.error, TransientError)
                goes_on.release()
        assert (follower.state, follower.error) == ("starting", None), "a trouble that is over is still told"
        goes_on.release(100)
        wait_for(lambda: told.states[-1] == "following", "it has caught up")
    assert told.states[:4] == ["starting", "waiting", "starting", "following"]


def test_a_target_that_takes_a_little_and_fails_again_is_told_of_once(tmp_path: Path) -> None:
    folder = tmp_path / "shop"
    write_project("commerce", folder)
    (folder / "headrace.toml").write_text(
        '[profiles.local]\npage.serve = "off"\nreplicas.copy = { kind = "files", path = "changes/" }\n'
    )
    runtime = Runtime.open(load_project(folder))
    try:
        notices: list[str] = []
        runtime.replicas.on_notice = notices.append
        (follower,) = runtime.replicas.followers
        away = TransientError("the target is away")
        for state, error in (("waiting", away), ("starting", None)) * 3:
            follower.state, follower.error = state, error
            runtime.replicas.state(follower)
        follower.state = "following"
        runtime.replicas.state(follower)
    finally:
        runtime.close()
    assert notices == ["replica 'copy' waiting: the target is away", "replica 'copy' goes on"]


@pytest.mark.parametrize(("scheme", "times"), [("http", 0), ("https", 1)])
@pytest.mark.parametrize("kind", ["elasticsearch", "webhook"])
def test_certificates_are_read_for_tls_alone(
    kind: str, scheme: str, times: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[int] = []
    make = ssl.create_default_context

    def counted(*words: Any, **more: Any) -> ssl.SSLContext:
        made.append(1)
        return make(*words, **more)

    monkeypatch.setattr(ssl, "create_default_context", counted)
    url, nobody = f"{scheme}://127.0.0.1:1", Kept()
    task = Task(replica="copy", pipeline="tests", tables=(THINGS,), set_aside=nobody.refusals.extend)
    if kind == "webhook":
        WebhookReplica(kind=kind, url=url, path=str(tmp_path / "hook")).open(task).close()
    else:
        with pytest.raises(TransientError):
            ElasticsearchReplica(kind=kind, url=url).open(task)
    assert len(made) == times


def test_what_comes_while_a_round_is_sent_gathers_for_the_next_one(
    test: PipelineTest, target: FilesTarget
) -> None:
    tables = ("all_rows", "totals")
    wanted, fed, written = threading.Event(), threading.Event(), list[str]()

    def writing(chunk: Chunk) -> None:
        written.append(chunk.table.name)
        wanted.set()
        assert fed.wait(60)  # the engine commits in the middle of every round

    options: Any = Around(target.replica(tables=tables, linger=LONG), writing=writing)
    with following(test, options) as follower:
        assert wanted.wait(60)
        feed(test, 40, 24)
        follower.wake()
        fed.set()
        wait_for(lambda: follower.state == "following", "the round is over")
        assert written == ["all_rows", "totals"]
        catch_up(follower)
    same(test, target, tables)


@pytest.mark.parametrize(("share", "turns"), [("half", 2), ("quarter", 4)])
def test_a_catch_up_leaves_the_engine_its_share(
    test: PipelineTest, target: FilesTarget, share: str, turns: int
) -> None:
    took, over, began = 0.02, threading.Event(), list[float]()

    def writing(chunk: Chunk) -> None:
        began.append(time.monotonic())
        threading.Event().wait(took)

    given = target.replica(tables=("all_rows",), chunk_rows_max=2, share=share)
    options: Any = Around(given, writing=writing)
    with following(test, options) as follower:

        def commit() -> None:
            while not over.wait(0.002):
                follower.wake()

        engine = threading.Thread(target=commit)
        engine.start()
        try:
            wait_for(lambda: follower.reached >= test.store.status().epoch, "all of it is copied")
        finally:
            over.set()
            engine.join()
    assert len(began) >= 15
    assert began[-1] - began[0] >= turns * took * (len(began) - 1) * 0.95


def test_a_target_that_is_down_for_minutes_is_asked_now_and_then_and_the_engine_goes_on(
    test: PipelineTest, target: FilesTarget, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses, tried, goes_on = list[float](), threading.Semaphore(0), threading.Semaphore(0)

    class Minutes:
        """Time that passes when the test says so, in the place of a pause."""

        def __init__(self, ended: threading.Event) -> None:
            self.ended = ended

        def wait(self, seconds: float) -> bool:
            pauses.append(seconds)
            tried.release()
            assert goes_on.acquire(timeout=60)
            return self.ended.is_set()

    def waited(action: Any, ended: threading.Event, tell: Any) -> Any:
        stop: Any = Minutes(ended)
        return when_ready(action, stop, tell)

    monkeypatch.setattr("headrace.replicate.follower.when_ready", waited)
    down = [True]

    def opening() -> None:
        if down[0]:
            raise TransientError("the target is down")

    first, before = 40, test.store.status().epoch
    options: Any = Around(target.replica(), opening=opening)
    with following(test, options) as follower:
        while sum(pauses) < 5 * 60:
            assert tried.acquire(timeout=60)
            assert follower.state == "waiting"
            if len(pauses) % 10 == 0:
                feed(test, first, 10)  # returns: nothing holds the engine up
                first += 10
            goes_on.release()
        assert tried.acquire(timeout=60)
        assert test.store.status().epoch >= before + 3
        assert follower.reached == 0
        assert max(pauses) <= 12.5, "it is not tried for too long after it is back"
        assert len(pauses) <= 50, "a target that is away costs a try every ten seconds or so"
        down[0] = False
        goes_on.release()
        catch_up(follower)
    same(test, target)
