"""A commerce pipeline that runs in this process, with its page on a port of its own."""

from __future__ import annotations

import http.client
import json
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from headrace.blueprints import make_generator, write_project
from headrace.log import APPEND_SCHEMA
from headrace.operate import Project, Runtime, load_project, open_log
from headrace.operate.page_options import PageOptions
from headrace.operate.polling_options import PollingOptions
from headrace.produce.generator import load_history
from headrace.web.page.app import PAGE_FOLDER
from headrace.web.page.serve import served_page
from servers.absent import absent

if TYPE_CHECKING:
    from playwright.sync_api import BrowserContext

DEADLINE_S = 60
PLACES = ("dashboards", "tables", "records", "log", "logs", "alerts", "settings", "pipeline")

# Frames a second for three seconds; milliseconds until something is seen of a page that was opened.
FRAMES = """() => new Promise(done => {
    const times = [];
    const tick = now => {
        times.push(now);
        if (now - times[0] < 3000) requestAnimationFrame(tick);
        else done((times.length - 1) / ((now - times[0]) / 1000));
    };
    requestAnimationFrame(tick);
})"""
FIRST_PAINT = "() => performance.getEntriesByName('first-contentful-paint')[0]?.startTime ?? 0"


@dataclass
class RunningPage:
    address: str
    runtime: Runtime
    project: Project

    @property
    def port(self) -> int:
        return int(self.address.rpartition(":")[2])

    def send(self, *values: bytes, keys: list[bytes | None] | None = None) -> None:
        """Append records as a producer of another process would."""
        log = open_log(self.project, "events")
        rows = [
            {"partition": None, "record_time": None, "key": key, "value": value, "headers": []}
            for value, key in zip(values, keys or [None] * len(values), strict=True)
        ]
        log.append(pa.Table.from_pylist(rows, schema=APPEND_SCHEMA))
        log.close()

    def read(self) -> int:
        return self.runtime.store.ledger().read("events")

    def ask(
        self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None
    ) -> tuple[int, Any, http.client.HTTPMessage]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=DEADLINE_S)
        try:
            sent = None if body is None else json.dumps(body)
            given = {} if body is None else {"Content-Type": "application/json"}
            connection.request(method, path, sent, {**given, **(headers or {})})
            answer = connection.getresponse()
            read = answer.read()
            kind = answer.headers.get("content-type", "")
            return answer.status, json.loads(read) if "json" in kind else read.decode(), answer.headers
        finally:
            connection.close()


def eventually(true: Callable[[], bool], *, within_s: float = DEADLINE_S) -> None:
    """Return when `true` is; fail when that takes longer than `within_s`."""
    end, pause = time.monotonic() + within_s, threading.Event()
    while not true():
        assert time.monotonic() < end, "it did not happen in time"
        pause.wait(0.05)


@contextmanager
def running_page(
    folder: Path,
    *,
    events_hours: float = 0.1,
    replicas: dict[str, Any] | None = None,
    polling: dict[str, PollingOptions] | None = None,
    **options: Any,
) -> Iterator[RunningPage]:
    write_project("commerce", folder)
    project = load_project(folder)
    page = PageOptions(port=0, **options)
    profile = replace(project.profile, page=page, replicas=replicas or {}, polling=polling or {})
    project = replace(project, profile=profile)
    log = open_log(project, "events")
    load_history(
        make_generator("commerce", seed=7), log, hours=events_hours, until=log.now(), stop=threading.Event()
    )
    log.close()
    runtime, stop, told = Runtime.open(project), threading.Event(), list[str]()
    try:
        with served_page(runtime, told.append) as served:
            assert served.address, told
            follow = served.epochs_too(lambda report: None)
            engine = threading.Thread(target=runtime.run, args=(stop,), kwargs={"on_epoch": follow})
            engine.start()
            try:
                made = RunningPage(served.address, runtime, project)
                eventually(lambda: made.read() > 0 and made.runtime.answers.status()["epoch"] > 0)
                yield made
            finally:
                stop.set()
                engine.join()
    finally:
        runtime.close()


@contextmanager
def browser_context(address: str) -> Iterator[BrowserContext]:
    """Open the system's Chromium at a page's address; skip where there is none, or the page is not built."""
    chromium = shutil.which("chromium")
    for there, what in (
        (chromium, "chromium is not installed"),
        ((PAGE_FOLDER / "index.html").exists(), "make page"),
    ):
        if not there:
            absent(f"no browser tests: {what}")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        driver.selectors.set_test_id_attribute("data-test")
        browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield browser.new_context(viewport={"width": 1280, "height": 860}, base_url=address)
        browser.close()
