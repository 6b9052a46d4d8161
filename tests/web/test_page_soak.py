"""The page is left open while records flow: its memory does not grow. First paint and frames are told, only.

`HEADRACE_PAGE_SOAK_SECONDS` says for how long (30 minutes), `HEADRACE_PAGE_SOAK_RATE` the events a second.
"""

from __future__ import annotations

import os
import statistics
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from page_support import FIRST_PAINT, FRAMES, PLACES, RunningPage, browser_context, running_page

from headrace.blueprints import make_generator
from headrace.operate import open_log
from headrace.produce.generator import GeneratorReport, run_generator
from headrace.web.page.live import EPOCHS_KEPT

if TYPE_CHECKING:
    from playwright.sync_api import CDPSession, Page

SECONDS = float(os.environ.get("HEADRACE_PAGE_SOAK_SECONDS", "1800"))
RATE = float(os.environ.get("HEADRACE_PAGE_SOAK_RATE", "5000"))
WARM_SHARE = 0.5
"""Of the time, in which what the page keeps fills up: a quarter of an hour of samples, lines of the journal.
It goes on until as many epochs were committed as a page keeps, which takes a busy machine longer."""

STAY_MS = 5_000


def heap_bytes(devtools: CDPSession) -> float:
    """Return what the page's scripts hold, after everything that nobody holds was taken away."""
    for _ in range(3):
        devtools.send("HeapProfiler.collectGarbage")
    metrics = devtools.send("Performance.getMetrics")["metrics"]
    return float(next(each["value"] for each in metrics if each["name"] == "JSHeapUsedSize"))


def walk(tab: Page, until: float, frames: list[float]) -> None:
    """Go from page to page as a person does, by its links, never loading it anew."""
    while time.monotonic() < until:
        for place in PLACES:
            tab.locator(f"nav a[href='/{place}']").click()
            tab.get_by_role("heading", level=1).wait_for()
            tab.wait_for_timeout(STAY_MS)
            frames.append(tab.evaluate(FRAMES))


def flow(page: RunningPage, stop: threading.Event, done: list[GeneratorReport]) -> None:
    log = open_log(page.project, "events")
    done.append(run_generator(make_generator("commerce", seed=11), log, rate=RATE, stop=stop))
    log.close()


@pytest.mark.soak
def test_a_page_that_is_left_open_does_not_grow(tmp_path: Path) -> None:
    stop, made, frames = threading.Event(), list[GeneratorReport](), list[float]()
    with (
        running_page(tmp_path / "commerce", events_hours=2.0) as page,
        browser_context(page.address) as context,
    ):
        producer = threading.Thread(target=flow, args=(page, stop, made))
        producer.start()
        try:
            tab = context.new_page()
            tab.goto("/pipeline")
            tab.get_by_text("adds up").first.wait_for()
            first_paint_ms = tab.evaluate(FIRST_PAINT)
            devtools = context.new_cdp_session(tab)
            devtools.send("Performance.enable")
            began = time.monotonic()
            walk(tab, began + SECONDS * WARM_SHARE, frames)
            while page.runtime.store.status().epoch < EPOCHS_KEPT:
                walk(tab, time.monotonic() + STAY_MS / 1000, frames)
            full = time.monotonic()
            before = heap_bytes(devtools)
            walk(tab, full + SECONDS * (1 - WARM_SHARE), frames)
            after = heap_bytes(devtools)
            opened_s = time.monotonic() - began
        finally:
            stop.set()
            producer.join()
    print(
        f"\nfirst paint {first_paint_ms:.0f} ms; frames a second: median {statistics.median(frames):.0f}, "
        f"least {min(frames):.0f}; {made[0].rate:,.0f} events/s for {opened_s:.0f} s; "
        f"heap {before / 1e6:.1f} MB, then {after / 1e6:.1f} MB ({after / before - 1:+.1%})"
    )
    assert after < before * 1.1
