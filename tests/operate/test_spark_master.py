"""The workers of a standalone cluster: told by its master's page, and nothing waits for them."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from headrace.operate import load_project
from headrace.operate.spark_master import MasterPage, master_page_of
from servers.guard import free_ports, wait_until
from servers.jars import ServerMissing, java
from servers.plugin import server_missing

PIPELINE = """
import headrace as hr

pipeline = hr.Pipeline("shop")
pipeline.stream("events", schema="id VARCHAR NOT NULL, happened TIMESTAMP NOT NULL", event_time="happened")
pipeline.table("counted", "SELECT count(*) AS n FROM events")
"""
SPARK = 'engine = "spark"\nstreams.events = { log = "kafka", brokers = "127.0.0.1:1" }\n'
WORKER = b"""{"status": "ALIVE", "workers": [{"host": "a", "port": 1, "state": "ALIVE", "cores": %s,
    "coresused": 0, "memory": 1, "memoryused": 0}]}"""


@contextmanager
def answering(*bodies: bytes) -> Iterator[list[str]]:
    """Pages that say these bodies to whoever asks; b"" stands for an error of theirs."""
    servers = []
    for body in bodies:

        class Answer(BaseHTTPRequestHandler):
            said = body

            def do_GET(self) -> None:
                self.send_response(200 if self.said else 500)
                self.end_headers()
                self.wfile.write(self.said)

            def log_message(self, *_: object) -> None:
                pass

        servers.append(ThreadingHTTPServer(("127.0.0.1", 0), Answer))
        threading.Thread(target=servers[-1].serve_forever, daemon=True).start()
    try:
        yield [f"http://127.0.0.1:{server.server_port}" for server in servers]
    finally:
        for server in servers:
            server.shutdown()
            server.server_close()


def asked(page: MasterPage) -> dict[str, object]:
    page.ask()
    return page.facts()


def test_the_master_that_leads_is_asked_and_not_those_that_stand_by() -> None:
    standby, leads = ({"workers": [], "status": status} for status in ("STANDBY", "ALIVE"))
    with answering(json.dumps(standby).encode(), json.dumps(leads).encode()) as pages:
        assert asked(MasterPage(pages)) == {"workers": [], "workers_problem": ""}
        told = asked(MasterPage(pages[:1]))
        assert told == {
            "workers": None,
            "workers_problem": f"{pages[0]}: stands by for the master that leads",
        }


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"<html>", "is no page of a master"),
        (b"[]", "is no page of a master"),
        (b'{"workers": [{"host": "a"}]}', "is no page of a master"),
        (b"", "answers 500"),
        (WORKER % b"Infinity", "is no page of a master"),
        (WORKER % b"1e999", "is no page of a master"),
        (b"[" * 200_000, "is no page of a master"),
        (b" " * 5_000_000, "is no page of a master"),
    ],
)
def test_a_page_that_is_no_masters_is_told_as_that(body: bytes, why: str) -> None:
    with answering(body) as pages:
        assert asked(MasterPage(pages)) == {"workers": None, "workers_problem": f"{pages[0]}: {why}"}


def test_a_page_that_never_comes_to_its_end_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    over = threading.Event()

    class Trickle(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            with suppress(OSError):
                while not over.wait(0.01):
                    self.wfile.write(b" ")

        def log_message(self, *_: object) -> None:
            pass

    monkeypatch.setattr("headrace.operate.spark_master._ANSWER_S_MAX", 0.2)
    with ThreadingHTTPServer(("127.0.0.1", 0), Trickle) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        page = f"http://127.0.0.1:{server.server_port}"
        assert asked(MasterPage([page])) == {"workers": None, "workers_problem": f"{page}: no answer in time"}
        over.set()
        server.shutdown()


def test_a_password_in_the_address_is_not_told() -> None:
    (port,) = free_ports(1)
    for scheme in ("http://", ""):
        for password in ("se@cret", "sec://ret"):
            told = asked(MasterPage([f"{scheme}admin:{password}@127.0.0.1:{port}"]))
            assert told["workers_problem"] == f"{scheme}127.0.0.1:{port}: cannot be reached"


def test_a_master_that_is_away_is_said_and_asked_again_only_later() -> None:
    (port,) = free_ports(1)
    time = [100.0]
    page = MasterPage([f"http://127.0.0.1:{port}"], clock=lambda: time[0])
    assert page.facts() == {"workers": None, "workers_problem": ""}, "nobody waits for the first answer"
    problem = f"http://127.0.0.1:{port}: cannot be reached"
    wait_until(lambda: page.facts()["workers_problem"] == problem, what="it is said", seconds=30)
    with answering(b'{"workers": [], "status": "ALIVE"}') as pages:
        page._addresses = tuple(pages)
        time[0] += 9
        assert page.facts()["workers"] is None
        assert page._asking is not None and not page._asking.is_alive()
        time[0] += 1
        wait_until(lambda: page.facts()["workers"] == [], what="it is asked again", seconds=30)


@pytest.mark.parametrize(
    ("profile", "addresses"),
    [
        ('spark.master = "spark://one:7077,two:7077"', ("http://one:8080", "http://two:8080")),
        ('spark.master = "spark://one:7077"\nspark.master_page = "http://x:1/"', ("http://x:1",)),
        ('spark.master = "spark://[::1]:7077"', ("http://[::1]:8080",)),
        ('spark.master = "local[2]"', None),
        ('spark.master = "yarn"', None),
    ],
)
def test_the_profile_says_where_the_master_is(
    tmp_path: Path, profile: str, addresses: tuple[str, ...] | None
) -> None:
    (tmp_path / "pipeline.py").write_text(PIPELINE)
    (tmp_path / "headrace.toml").write_text(f"[profiles.local]\n{SPARK}{profile}\n")
    page = master_page_of(load_project(tmp_path))
    assert (None if page is None else page._addresses) == addresses


@pytest.mark.slow
def test_a_real_master_tells_its_workers() -> None:
    from servers.spark import spark_cluster

    try:
        java(17)
    except ServerMissing as missing:
        server_missing(missing)
    with spark_cluster(1) as cluster:
        told = asked(MasterPage([cluster.page]))
    (worker,) = told["workers"]  # type: ignore[misc]
    assert worker.pop("worker").startswith("127.0.0.1:")
    assert worker == {
        "state": "alive",
        "cores": 1,
        "cores_used": 0,
        "memory_bytes": 1024**3,
        "memory_used_bytes": 0,
    }
