"""What goes wrong in a run is on an open page within three seconds of when it is done, not of its commit.

Three seconds are what the page promises, however busy the machine is. A machine that stalls for a moment says
nothing about the page, so the fastest of a few tries counts; each of them has to be seen at last.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from page_support import RunningPage, browser_context, eventually, running_page

from headrace.replicate.webhook import WebhookReplica
from servers.guard import GuardedProcess, free_ports

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = pytest.mark.slow

PROMISED_S = 3.0
TRIES = 4
AT_LAST_MS = 60_000
TARGET = """
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer

class Takes(BaseHTTPRequestHandler):
    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.end_headers()

HTTPServer(("127.0.0.1", int(sys.argv[1])), Takes).serve_forever()
"""


class Target:
    """The server of a replica, a process of its own."""

    def __init__(self, folder: Path) -> None:
        (self.port,) = free_ports(1)
        self._folder = folder
        self.start()

    def start(self) -> None:
        command = [sys.executable, "-c", TARGET, str(self.port)]
        self.process = GuardedProcess(command, output=self._folder / "target.out")


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    made = Target(tmp_path_factory.mktemp("target"))
    yield made
    made.process.stop()


@pytest.fixture(scope="module")
def page(target: Target, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningPage]:
    folder = tmp_path_factory.mktemp("seen")
    replica = WebhookReplica(
        kind="webhook",
        url=f"http://127.0.0.1:{target.port}/",
        path=str(folder / "cursors"),
        tables=("purchase_analytics",),
    )
    with running_page(folder / "commerce", events_hours=0.01, replicas={"hook": replica}) as made:
        yield made


@pytest.fixture
def tab(page: RunningPage) -> Iterator[Page]:
    with browser_context(page.address) as context:
        context.set_default_timeout(AT_LAST_MS)
        opened = context.new_page()
        opened.goto("/pipeline")
        opened.get_by_test_id("outcome-events-accepted").wait_for()
        yield opened


def fastest(done_and_seen: Callable[[], float]) -> float:
    """Return the least of a few tries, or the first that is as fast as was promised."""
    times: list[float] = []
    while len(times) < TRIES and (not times or min(times) > PROMISED_S):
        times.append(done_and_seen())
    return min(times)


def bursts(page: RunningPage, tab: Page, outcome: str, records: Callable[[int], list[bytes]]) -> float:
    tries = 0

    def burst() -> float:
        nonlocal tries
        tries += 1
        before = page.runtime.store.ledger().outcomes("events").get(outcome, 0)
        values = records(tries)
        begun = time.monotonic()
        page.send(*values)
        tab.wait_for_function(
            "([shown, least]) => "
            "Number(document.querySelector(shown)?.textContent.replace(/\\D/g, '')) >= least",
            arg=[f"[data-test=outcome-events-{outcome}]", before + len(values)],
        )
        return time.monotonic() - begun

    return fastest(burst)


def event(name: str, at: str, **facts: object) -> bytes:
    known = {"event_id": name, "event_type": "search", "user_id": "u", "device": "mobile", "timestamp": at}
    return json.dumps(known | facts).encode()


def test_a_burst_of_malformed_records_is_seen_within_three_seconds(page: RunningPage, tab: Page) -> None:
    assert bursts(page, tab, "malformed", lambda attempt: [b"{broken"] * 300) <= PROMISED_S


def test_a_burst_of_late_records_is_seen_within_three_seconds(page: RunningPage, tab: Page) -> None:
    def late(attempt: int) -> list[bytes]:
        return [event(f"late-{attempt}-{each}", "2020-01-01T00:00:00Z") for each in range(200)]

    assert bursts(page, tab, "late", late) <= PROMISED_S


def test_a_replica_whose_server_is_killed_is_seen_within_three_seconds(
    page: RunningPage, tab: Page, target: Target
) -> None:
    tries = 0
    told = tab.get_by_text("Replica hook is waiting")

    def following() -> bool:
        return str(page.runtime.replicas.states()[0]["state"]) == "following"

    def killed() -> float:
        nonlocal tries
        tries += 1
        eventually(following)
        told.wait_for(state="detached")
        now = page.runtime.logs["events"].now().isoformat()
        target.process.kill()
        begun = time.monotonic()
        # A target that gets nothing is not asked for anything; in a run, records go on.
        page.send(event(f"bought-{tries}", now, event_type="purchase", total_amount=1))
        told.wait_for()
        took = time.monotonic() - begun
        target.start()
        return took

    assert fastest(killed) <= PROMISED_S


def test_a_replica_pauses_and_goes_on_from_the_page(page: RunningPage, tab: Page) -> None:
    def state() -> str:
        return str(page.runtime.replicas.states()[0]["state"])

    eventually(lambda: state() == "following")
    tab.goto("/settings")
    tab.get_by_role("button", name="Pause").click()
    eventually(lambda: state() == "paused")
    tab.get_by_role("button", name="Resume").click()
    eventually(lambda: state() == "following")
    told = page.ask("GET", "/api/journal?contains=replica%20told")[1]["lines"]
    assert [line["facts"]["action"] for line in told] == ["pause", "resume"]
