"""The HTTP poller against a real HTTP server: where it goes on, what it asks again, where it must not go."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from polled_api import Reply, api, ids, page, poller, values

from headrace.errors import RefusedError, TransientError
from headrace.log import open_embedded_log
from headrace.log.between import read_between
from headrace.log.kafka import open_kafka_log
from headrace.log.protocol import APPEND_SCHEMA, Appended, Log, LogFullError
from headrace.produce import polling
from headrace.produce.polling import PAGE, Poller, PollSettings
from headrace.produce.polling_http import Guard, fetch
from log.kafka_streams import cut_to, make_topic
from servers.topics import kafka_topics


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Log]:
    opened = open_embedded_log(tmp_path / "log.db", "users")
    yield opened
    opened.close()


def test_pages_are_appended_in_turn_and_the_next_run_goes_on(log: Log) -> None:
    with api(page) as server:
        assert poller(server, log).run(pages=2).records == 6
        poller(server, log).run(pages=1)
    assert ids(log) == [f"{number}-{i}" for number in (1, 2, 3) for i in range(3)]
    assert server.asked == [f"/api/?page={number}" for number in (1, 2, 3)]


def test_a_page_that_was_appended_and_not_noted_is_polled_again_and_nothing_is_lost(
    log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    with api(page) as server:
        poller(server, log).run(pages=1)
        dying = poller(server, log)

        def die(page: int, taken: int) -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr(dying, "_remember", die)
        with pytest.raises(KeyboardInterrupt):
            dying.run(pages=1)
        poller(server, log).run(pages=2)
    assert [each.split("-")[0] for each in ids(log)] == ["1"] * 3 + ["2"] * 6 + ["3"] * 3


def test_another_url_begins_at_its_first_page(log: Log) -> None:
    with api(page) as server:
        poller(server, log).run(pages=2)
        poller(server, log, url=f"{server.url}/other/?page={PAGE}", page_first=7).run(pages=1)
    assert server.asked[-1] == "/other/?page=7"


def test_the_place_of_a_poller_is_found_behind_any_number_of_others_notes(
    log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[int] = []

    def noted(log: Log, starts: dict[int, int], ends: dict[int, int]) -> Any:
        started.append(starts[0])
        return read_between(log, starts, ends)

    monkeypatch.setattr(polling, "read_between", noted)
    with api(page) as server:
        poller(server, log).run(pages=3)
        value = json.dumps({"of": "another", "page": 9, "taken": 0}).encode()
        notes = [{"partition": 0, "key": b"another", "value": value}] * 500
        log.lane(polling.LANE, latest=True).append(pa.Table.from_pylist(notes, APPEND_SCHEMA))
        poller(server, log).run(pages=1)
        assert server.asked[-1] == "/api/?page=4"
        far, started[:] = len(started), []
        poller(server, log).run(pages=1)
    assert server.asked[-1] == "/api/?page=5"
    assert started == [504 - 64], "what stands near the end is found without looking far"
    assert far > 1


def test_a_page_without_items_is_asked_again_and_not_passed_over(log: Log) -> None:
    def reply(path: str, request: int) -> Reply:
        return page(path, request) if request > 2 else (200, {}, b'{"results": []}')

    with api(reply) as server:
        poller(server, log).run(pages=3)
    assert server.asked == ["/api/?page=1"] * 3
    assert len(ids(log)) == 3


def test_requests_keep_their_distance(log: Log) -> None:
    waits: list[float] = []
    with api(page) as server:
        poller(server, log, waits=waits, every_s=60.0).run(pages=3)
    assert len(waits) == 2
    assert all(50 < seconds <= 60 for seconds in waits)


def test_what_may_pass_is_tried_again_with_growing_pauses(log: Log) -> None:
    def reply(path: str, request: int) -> Reply:
        return page(path, request) if request > 4 else ((503, 500, 429, 502)[request - 1], {}, b"")

    waits: list[float] = []
    with api(reply) as server:
        report = poller(server, log, waits=waits).run(pages=1)
    assert report.retries == 4
    assert [0.5 * 2**i <= waits[i] <= 0.5 * 2**i * 1.26 for i in range(4)] == [True] * 4
    assert len(ids(log)) == 3


@pytest.mark.parametrize(
    ("said", "least", "most"),
    [
        ("7", 7, 9),
        ("100000", 300, 376),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 0, 1),
        ("soon", 0, 1),
        ("-5", 0, 1),
    ],
)
def test_retry_after_is_honoured_within_bounds(log: Log, said: str, least: float, most: float) -> None:
    def reply(path: str, request: int) -> Reply:
        return page(path, request) if request > 1 else (429, {"Retry-After": said}, b"")

    waits: list[float] = []
    with api(reply) as server:
        poller(server, log, waits=waits).run(pages=1)
    assert least <= waits[0] <= most


def test_an_answer_that_says_no_ends_the_polling(log: Log) -> None:
    with api(lambda path, request: (404, {}, b"")) as server, pytest.raises(RefusedError, match="404"):
        poller(server, log).run(pages=1)


@pytest.mark.parametrize("body", [b"<html>", b'{"results": 5}', b"[1]", b"\xff", b"[" * 100_000, b""])
def test_an_answer_of_another_shape_is_kept_once_and_its_page_asked_for_until_it_is_right(
    log: Log, body: bytes
) -> None:
    def reply(path: str, request: int) -> Reply:
        return (200, {}, body) if request <= 6 else page(path, request)

    waits: list[float] = []
    with api(reply) as server:
        report = poller(server, log, waits=waits).run(pages=2)
    assert values(log)[0] == body
    assert [json.loads(value)["id"] for value in values(log)[1:]] == [
        "1-0",
        "1-1",
        "1-2",
        "2-0",
        "2-1",
        "2-2",
    ]
    assert (report.malformed, server.asked.count("/api/?page=1")) == (1, 7)
    assert waits == sorted(waits)


def test_an_answer_without_content_is_a_page_without_items(log: Log) -> None:
    with api(lambda path, request: (204, {}, b"") if request < 3 else page(path, request)) as server:
        report = poller(server, log).run(pages=3)
    assert (server.asked, report.malformed) == (["/api/?page=1"] * 3, 0)
    assert len(ids(log)) == 3


def test_a_log_that_is_full_is_waited_for(tmp_path: Path) -> None:
    full = open_embedded_log(tmp_path / "full.db", "users", bytes_max=1_000, retention_age=timedelta(0))
    full.publish("engine", {0: 0})  # retention passes no reader
    waits: list[float] = []

    def make_room(seconds: float) -> bool:
        waits.append(seconds)
        full.publish("engine", {each.partition: each.end for each in full.partitions()})
        return False

    with api(page) as server:
        settings = PollSettings(url=f"{server.url}/api/?page={PAGE}", private_addresses=True, every_s=0.0)
        polled = Poller(settings, full, threading.Event(), wait=make_room)
        polled.run(pages=100)
    last = [json.loads(value)["id"] for value in values(full)][-3:]
    full.close()
    assert waits
    assert last == [f"100-{at}" for at in range(3)]


def test_where_a_poller_stands_says_nothing_of_its_url(log: Log) -> None:
    with api(page) as server:
        poller(server, log, url=f"{server.url}/api/?key=secret&page={PAGE}").run(pages=1)
    assert all(b"secret" not in value for value in values(log.lane("polling")))


def test_an_item_that_cannot_be_flattened_is_kept_as_it_came(log: Log) -> None:
    def flatten(item: Any, now: datetime) -> dict[str, Any]:
        if item["id"].endswith("1"):
            raise KeyError("login")
        return {"id": item["id"], "polled_at": now.astimezone(UTC).isoformat()}

    with api(page) as server:
        report = poller(server, log, flatten=flatten, key="id").run(pages=1)
    first, second, third = (json.loads(value) for value in values(log))
    assert (first["id"], third["id"]) == ("1-0", "1-2")
    assert datetime.fromisoformat(first["polled_at"]).tzinfo is not None
    assert second == {"id": "1-1"}
    assert (report.records, report.malformed) == (2, 1)


def test_a_log_that_was_full_is_told_to_be_ready_once_it_takes_records(
    log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries: list[int] = []
    told: list[str] = []
    append = log.append

    def full_at_first(records: pa.Table) -> Appended:
        tries.append(1)
        if len(tries) < 3:
            raise LogFullError("the log is full")
        return append(records)

    monkeypatch.setattr(log, "append", full_at_first)
    with api(page) as server:
        poller(server, log, tell=lambda pause: told.append("waits" if pause else "ready")).run(pages=1)
    assert told == ["waits", "waits", "ready"]


def test_pollers_that_wait_for_one_log_do_not_come_back_as_one(
    log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries = 0
    append = log.append

    def away_at_first(records: pa.Table) -> Appended:
        nonlocal tries
        tries += 1
        if tries <= 10:
            raise TransientError("no answer")
        return append(records)

    monkeypatch.setattr(log, "append", away_at_first)
    pauses: list[list[float]] = []
    for _ in range(2):
        tries, waits = 0, list[float]()
        with api(page) as server:
            poller(server, log, waits=waits).run(pages=1)
        pauses.append(waits)
    assert all(0.5 <= waits[0] < 1 <= waits[1] < waits[5] < waits[9] <= 37.5 for waits in pauses)
    assert pauses[0] != pauses[1]


def test_an_answer_that_is_too_large_is_refused(log: Log) -> None:
    with (
        api(lambda path, request: (200, {}, b"x" * 2_000_000)) as server,
        pytest.raises(RefusedError, match="1,000,000 bytes"),
    ):
        poller(server, log, body_bytes_max=1_000_000).run(pages=1)


def test_an_answer_that_ends_too_early_is_not_taken(log: Log) -> None:
    with (
        api(lambda path, request: (200, {"Content-Length": "5000"}, b'{"results": []}')) as server,
        pytest.raises(TransientError),
    ):
        fetch(server.url, Guard.of(server.url, private=True), timeout_s=5, body_bytes_max=10_000)


def test_a_server_that_trickles_is_cut_off() -> None:
    cut = threading.Event()
    listening = socket.create_server(("127.0.0.1", 0))

    def trickle() -> None:
        given, _ = listening.accept()
        with given, suppress(OSError):
            given.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
            while not cut.wait(0.05):
                given.sendall(b"x")  # always soon enough for the timeout of one read

    thread = threading.Thread(target=trickle, daemon=True)
    thread.start()
    url = f"http://127.0.0.1:{listening.getsockname()[1]}/"
    try:
        with pytest.raises(TransientError):
            fetch(url, Guard.of(url, private=True), timeout_s=0.5, body_bytes_max=10_000)
    finally:
        cut.set()
        thread.join()
        listening.close()


def test_a_redirect_to_another_host_is_not_followed(log: Log) -> None:
    def reply(path: str, request: int) -> Reply:
        return 302, {"Location": "http://localhost:80/secret"}, b""

    with api(reply) as server, pytest.raises(RefusedError, match="'localhost'"):
        poller(server, log).run(pages=1)


def test_a_redirect_within_the_host_is_followed(log: Log) -> None:
    def reply(path: str, request: int) -> Reply:
        return page(path, request) if path.startswith("/new") else (301, {"Location": f"/new{path}"}, b"")

    with api(reply) as server:
        poller(server, log).run(pages=1)
    assert len(ids(log)) == 3


def test_redirects_without_end_are_refused(log: Log) -> None:
    with (
        api(lambda path, request: (302, {"Location": path}, b"")) as server,
        pytest.raises(RefusedError, match="more than 5 times"),
    ):
        poller(server, log).run(pages=1)


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1/",
        "http://[::1]/",
        "http://localhost/",
        "http://10.1.2.3/",
        "http://169.254.169.254/latest/meta-data/",
        "http://[::ffff:127.0.0.1]/",
        "http://0.0.0.0/",
        "http://2130706433/",
        "http://[fd00::1]/",
        "http://100.64.0.1/",
        "http://[64:ff9b::a9fe:a9fe]/",
        "http://[::a9fe:a9fe]/",
    ],
)
def test_addresses_that_are_not_public_are_not_asked(url: str) -> None:
    with pytest.raises(RefusedError, match="not public"):
        Guard.of(url).addresses(url)


@pytest.mark.parametrize(
    "url",
    [
        "file:///etc/passwd",
        "ftp://host/",
        "http://user:word@host/",
        "http:///x",
        "http://h:99999/",
        "http://h/\xe4",
        "x",
    ],
)
def test_urls_of_other_kinds_are_refused_without_being_shown(url: str) -> None:
    with pytest.raises(RefusedError) as raised:
        Guard.of(url)
    assert "word" not in str(raised.value).replace("password", "")


def test_another_port_of_an_allowed_host_is_not_asked() -> None:
    with pytest.raises(RefusedError, match="port 22"):
        Guard.of("http://127.0.0.1:8080/", private=True).addresses("http://127.0.0.1:22/")


def filling(sizes: list[int]) -> Callable[[str, int], Reply]:
    """An API of which request `n` finds so many items; a page has four."""

    def reply(path: str, request: int) -> Reply:
        number, there = int(path.rpartition("=")[2]), sizes[min(request, len(sizes)) - 1]
        items = [{"id": str(i)} for i in range(there)][(number - 1) * 4 : number * 4]
        return 200, {}, json.dumps({"results": items}).encode()

    return reply


def test_a_page_that_is_not_full_is_asked_for_until_it_is_and_its_items_are_taken_once(log: Log) -> None:
    with api(filling([3, 3, 6, 6, 7])) as server:
        assert poller(server, log, page_items=4).run(pages=2).records == 3
        report = poller(server, log, page_items=4).run(pages=3)  # another run goes on within the page
    assert server.asked == [f"/api/?page={number}" for number in (1, 1, 1, 2, 2)]
    assert (report.records, report.page) == (4, 2)
    assert ids(log) == [str(i) for i in range(7)]


def test_an_item_that_is_too_large_is_cut_and_the_rest_of_its_page_goes_on(kafka_broker: str) -> None:
    def reply(path: str, request: int) -> Reply:
        items = [{"id": "1"}, {"id": "x" * 50_000}, {"id": "3"}]
        return 200, {}, json.dumps({"results": items}).encode()

    with kafka_topics(kafka_broker, record_bytes_max=5_000) as topics, api(reply) as server:
        topic = open_kafka_log(topics.settings("users", 1), "users")
        with closing(topic):
            report = poller(server, topic).run(pages=1)
            first, second, third = values(topic)
            assert (json.loads(first), json.loads(third)) == ({"id": "1"}, {"id": "3"})
            assert second == json.dumps({"id": "x" * 50_000}).encode()[: len(second)]
            assert len(second) >= 1_000
            assert (report.malformed, report.page) == (1, 2)


def test_a_poller_whose_place_is_gone_stops_instead_of_beginning_again(kafka_broker: str) -> None:
    with kafka_topics(kafka_broker) as topics, api(page) as server:
        settings = topics.settings("users", 1)
        lane = f"{settings.topic}.polling"
        make_topic(kafka_broker, lane)  # by somebody who lets it be deleted from
        with closing(open_kafka_log(settings, "users")) as log:
            poller(server, log).run(pages=2)
            poller(server, log).run(pages=1)
            assert ids(log)[-1] == "3-2"
            cut_to(kafka_broker, lane, 3)
            with pytest.raises(RefusedError, match="does not say any more where the poller stands"):
                poller(server, log).run(pages=1)
        assert len(server.asked) == 3


def test_redirects_share_the_time_of_their_request() -> None:
    slowly = threading.Event()

    def reply(path: str, request: int) -> Reply:
        slowly.wait(0.4)
        return 302, {"Location": f"/{request}"}, b""

    with api(reply) as server, pytest.raises(TransientError):
        fetch(server.url, Guard.of(server.url, private=True), timeout_s=1.0, body_bytes_max=10_000)
    assert len(server.asked) <= 3
