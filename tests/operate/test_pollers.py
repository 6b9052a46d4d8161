"""What a profile says of pollers, and what is wrong with it."""

from __future__ import annotations

import json
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from queue import Queue
from typing import Any

import pytest
from confluent_kafka.admin import AdminClient, NewTopic

from headrace.errors import ProfileError, TransientError
from headrace.log.between import read_between
from headrace.operate import load_project, open_log
from headrace.operate import pollers as module
from headrace.operate.journal import Journal
from headrace.operate.pollers import Pollers, open_poller
from headrace.operate.project import Project

PIPELINE = """
import headrace as hr
pipeline = hr.Pipeline("people")
pipeline.stream("users", schema="id VARCHAR NOT NULL, at TIMESTAMP NOT NULL", event_time="at")
pipeline.table("all_users", "SELECT id FROM users", key="id")
"""


def project(folder: Path, polling: str) -> Path:
    (folder / "pipeline.py").write_text(PIPELINE)
    (folder / "headrace.toml").write_text(f"[profiles.local]\n{polling}\n")
    return folder


@pytest.mark.parametrize(
    ("polling", "said"),
    [
        ('polling.user = { url = "http://h/" }', "no stream 'user'; did you mean 'users'?"),
        ("polling.users = { }", "does not say what is asked"),
        ('polling.users = { url = "http://h/", flatten = "users" }', "is no file and function"),
        ('polling.users = { url = "http://h/", every = 5 }', "takes a duration"),
        ('polling.users = { url = "http://h/", host = ["a"] }', "unknown option"),
        ('polling = "http://h/"', "takes a table"),
    ],
)
def test_a_poller_that_cannot_be_is_refused_with_its_line(tmp_path: Path, polling: str, said: str) -> None:
    with pytest.raises(ProfileError) as raised:
        load_project(project(tmp_path, polling))
    assert said in str(raised.value)
    assert "headrace.toml:2" in str(raised.value)


def test_a_stream_without_a_poller_cannot_be_polled(tmp_path: Path) -> None:
    with pytest.raises(ProfileError, match="polls nothing for a stream 'users'"):
        open_poller(load_project(project(tmp_path, "")), "users", threading.Event())


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("", "no function 'flatten'"),
        ("flatten = 5", "no function"),
        ("import nothing_there", "cannot be run"),
    ],
)
def test_a_function_that_is_not_there_is_named(tmp_path: Path, code: str, said: str) -> None:
    folder = project(tmp_path, 'polling.users = { url = "http://h/", flatten = "people:flatten" }')
    (folder / "people.py").write_text(code)
    with pytest.raises(ProfileError, match=said):
        open_poller(load_project(folder), "users", threading.Event())


def test_the_file_of_a_function_may_have_classes_that_look_their_module_up(tmp_path: Path) -> None:
    folder = project(tmp_path, 'polling.users = { url = "http://127.0.0.1:1/", flatten = "people:flatten" }')
    (folder / "people.py").write_text(
        "from __future__ import annotations\n"
        "from dataclasses import dataclass, KW_ONLY\n\n"
        "@dataclass\nclass Person:\n    _: KW_ONLY\n    id: str\n\n"
        "def flatten(user, polled_at):\n    return vars(Person(id=user))\n"
    )
    poller, log = open_poller(load_project(folder), "users", threading.Event())
    log.close()
    assert poller._settings.flatten is not None
    assert poller._settings.flatten("u1", None) == {"id": "u1"}


@contextmanager
def pages(items: Mapping[int, int]) -> Iterator[str]:
    """An API whose page `n` has so many items, and others none; its address, with a place for the page."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            number = int(self.path.rpartition("=")[2])
            found = [
                {"id": f"{number}-{i}", "at": "2026-03-01T12:00:00Z"} for i in range(items.get(number, 0))
            ]
            body = json.dumps({"results": found}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=[0.01], daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/?page={{page}}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def polled(folder: Path, url: str, options: str = "page_first = 1", streams: str = "") -> Project:
    more = f'url = "{url}", every = "10 ms", private_addresses = "yes", {options}'
    return load_project(project(folder, f"{streams}\npolling.users = {{ {more} }}"))


def polled_ids(polled: Project) -> list[str]:
    with closing(open_log(polled, "users")) as log:
        ranges = log.partitions()
        slices = read_between(
            log, {r.partition: r.start for r in ranges}, {r.partition: r.end for r in ranges}
        )
        return [json.loads(value)["id"] for each in slices for value in each.column("value").to_pylist()]


def notices_of(project: Project) -> list[str]:
    """What the pollers of a run say first."""
    notices, told, journal = list[str](), threading.Event(), Journal(project.journal_path)
    pollers = Pollers(project, journal)

    def keep(notice: str) -> None:
        notices.append(notice)
        told.set()

    pollers.on_notice = keep
    pollers.start()
    try:
        assert told.wait(60)
    finally:
        pollers.stop()
        journal.close()
    return notices


def test_an_answer_that_is_too_large_stops_its_poller_and_its_page_is_not_passed_over(tmp_path: Path) -> None:
    with pages({1: 3, 2: 4_000, 3: 3}) as url:
        small = polled(tmp_path, url, "body_bytes_max = 20_000")
        (notice,) = notices_of(small)
        assert "has stopped: an answer has more than 20,000 bytes" in notice
        assert "raise body_bytes_max" in notice
        assert polled_ids(small) == ["1-0", "1-1", "1-2"]
        # The operator does as told: the page is taken whole, and none before it comes again.
        poller, log = open_poller(polled(tmp_path, url), "users", threading.Event())
        with closing(log):
            assert poller.run(pages=2).records == 4_003
        wanted = {f"{page}-{i}" for page, count in ((1, 3), (2, 4_000), (3, 3)) for i in range(count)}
        found = polled_ids(small)
        assert (len(found), set(found)) == (len(wanted), wanted)


@pytest.fixture
def topic(kafka_broker: str) -> Iterator[str]:
    """The settings of a stream on a topic of one partition that is kept for an hour."""
    name = f"users-{uuid.uuid4().hex[:10]}"
    admin = AdminClient({"bootstrap.servers": kafka_broker})
    admin.create_topics([NewTopic(name, 1, config={"retention.ms": "3600000"})])[name].result(30)
    yield f'log = "kafka", brokers = "{kafka_broker}", topic = "{name}"'
    there = [each for each in admin.list_topics(timeout=10).topics if each.startswith(name)]
    for done in admin.delete_topics(there).values():
        done.result(30)


def test_a_poller_of_a_topic_that_is_kept_for_less_than_asked_says_so_and_polls_nothing(
    tmp_path: Path, topic: str
) -> None:
    with pages({1: 3}) as url:
        asked = polled(tmp_path, url, streams=f'streams.users = {{ {topic}, retention = "24 hours" }}')
        (notice,) = notices_of(asked)
        assert "has stopped" in notice
        assert "the topic has retention 1 hour, the profile asks for 1 day (fix: " in notice
        assert polled_ids(polled(tmp_path, url, streams=f"streams.users = {{ {topic} }}")) == []


def test_a_poller_of_a_topic_with_fewer_partitions_than_asked_has_them_made(
    tmp_path: Path, topic: str
) -> None:
    with pages({1: 3}) as url:
        asked = polled(tmp_path, url, streams=f"streams.users = {{ {topic}, partitions = 3 }}")
        poller, log = open_poller(asked, "users", threading.Event())
        with closing(log):
            assert poller.run(pages=1).records == 3
            assert len(log.partitions()) == 3
        assert sorted(polled_ids(asked)) == ["1-0", "1-1", "1-2"]


def test_a_poller_that_pauses_ends_and_goes_on_where_it_stood(tmp_path: Path) -> None:
    def working() -> set[str]:
        return {each.name for each in threading.enumerate() if each.name.startswith("headrace-poller-")}

    def eventually(true: Callable[[], bool]) -> None:
        end, pause = time.monotonic() + 60, threading.Event()
        while not true():
            assert time.monotonic() < end
            pause.wait(0.02)

    with pages(dict.fromkeys(range(1, 100_000), 1)) as url:
        asked = polled(tmp_path, url)
        journal = Journal(asked.journal_path)
        pollers = Pollers(asked, journal)
        try:
            pollers.pause(frozenset({"users"}))
            pollers.start()
            assert working() == set()
            for least in (3, 6):
                pollers.pause(frozenset())
                pollers.pause(frozenset())
                eventually(lambda: len(polled_ids(asked)) >= least)  # noqa: B023 - asked within this round
                assert working() == {"headrace-poller-users"}
                pollers.pause(frozenset({"users"}))
                eventually(lambda: not working())
        finally:
            pollers.stop()
            journal.close()
        found = sorted(int(each.partition("-")[0]) for each in polled_ids(asked))
        assert found == list(range(1, len(found) + 1))


def test_a_poller_whose_log_was_away_says_that_it_goes_on_once_it_polls(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries: list[int] = []

    def away_at_first(*words: Any, **more: Any) -> Any:
        tries.append(1)
        if len(tries) < 3:
            raise TransientError("no answer from the broker")
        return open_poller(*words, **more)

    monkeypatch.setattr(module, "open_poller", away_at_first)
    said: Queue[str] = Queue()
    with pages(dict.fromkeys(range(1, 100_000), 1)) as url:
        asked = polled(tmp_path, url)
        journal = Journal(asked.journal_path)
        pollers = Pollers(asked, journal)
        pollers.on_notice = said.put
        pollers.start()
        try:
            assert said.get(timeout=60) == "poller of 'users' waits: no answer from the broker"
            assert said.get(timeout=60) == "poller of 'users' goes on"
        finally:
            pollers.stop()
            journal.close()
