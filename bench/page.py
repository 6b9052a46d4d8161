"""How smooth the page is while records flow: `python -m bench.page [--rate 5000] [--rounds 3]`.

The commerce pipeline runs in this process and serves its page, a generator in a process of its own sends
`--rate` events a second, and the system's Chromium opens the page, as in the tests of the page. Measured are
the time until something is seen of a page that is opened anew, with nothing kept from before, and the frames
a second on every place of it. Prints each with its bar, and writes everything into `bench/results/`. The exit
code is 1 when a bar is missed, also that the events flowed. To be run on a quiet machine.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.__main__ import load, machine

if TYPE_CHECKING:
    from page_support import RunningPage
    from playwright.sync_api import BrowserContext

ROOT = Path(__file__).parents[1]
FIRST_PAINT_MS_MAX = 1_000
# A screen has 60 a second; a window of three seconds may begin and end between two of them.
FRAMES_MIN = 59.5
RATE_SHARE_MIN = 0.95
_OPENED = 5
_SETTLED_MS = 1_500
_HISTORY_HOURS = 2.0


def main() -> int:
    """Measure, print, write, and say by the exit code whether the bars hold."""
    parser = argparse.ArgumentParser(prog="python -m bench.page", description=__doc__.splitlines()[0])
    parser.add_argument("--rate", type=int, default=5_000, help="events a second")
    parser.add_argument("--rounds", type=int, default=3, help="how often every place is looked at")
    chosen = parser.parse_args()
    sys.path += [str(ROOT / "tests"), str(ROOT / "tests" / "web")]
    from page_support import browser_context, running_page

    began, before = datetime.now(UTC), load()
    with (
        tempfile.TemporaryDirectory(prefix="headrace-bench-") as temporary,
        running_page(Path(temporary) / "commerce", events_hours=_HISTORY_HOURS) as page,
        browser_context(page.address) as context,
    ):
        measured = looked_at(page, context, chosen.rate, chosen.rounds)
    lines = judged(measured, chosen.rate)
    for line in lines:
        verdict = "" if line["pass"] is None else ("kept" if line["pass"] else "MISSED")
        print(f"{line['what']:<44} {line['value']:>10,.1f}  {line['bar']:>12}  {verdict}")
    facts = {"began": began.isoformat(), "load_before": before, "machine": machine(), "rate": chosen.rate}
    path = ROOT / "bench" / "results" / f"page-{began:%Y%m%dT%H%M%SZ}.json"
    path.write_text(json.dumps({**facts, "lines": lines, "measured": measured}, indent=1) + "\n")
    print(path.relative_to(ROOT))
    return 1 if any(line["pass"] is False for line in lines) else 0


def looked_at(page: RunningPage, context: BrowserContext, rate: int, rounds: int) -> dict[str, Any]:
    """Open the page and walk through it while records flow; return all that was measured."""
    from page_support import FIRST_PAINT, FRAMES, PLACES, eventually

    command = [sys.executable, "-m", "headrace", "generate", "commerce", "--rate", str(rate)]
    sending = subprocess.Popen([*command, "-C", str(page.project.folder)], stdout=subprocess.DEVNULL)
    paints: list[float] = []
    frames: dict[str, list[float]] = {place: [] for place in PLACES}
    try:
        already = page.read()
        eventually(lambda: page.read() > already + rate)
        read, begun = page.read(), time.monotonic()
        assert context.browser is not None
        for _ in range(_OPENED):
            fresh = context.browser.new_context(
                base_url=page.address, viewport={"width": 1280, "height": 860}
            )
            tab = fresh.new_page()
            tab.goto("/pipeline")
            tab.get_by_text("adds up").first.wait_for()
            paints.append(tab.evaluate(FIRST_PAINT))
            fresh.close()
        tab = context.new_page()
        tab.goto("/pipeline")
        for _ in range(rounds):
            for place in PLACES:
                tab.locator(f"nav a[href='/{place}']").click()
                tab.get_by_role("heading", level=1).wait_for()
                tab.wait_for_timeout(_SETTLED_MS)
                frames[place].append(tab.evaluate(FRAMES))
        flowed = (page.read() - read) / (time.monotonic() - begun)
    finally:
        sending.terminate()
        sending.wait()
    return {"first_paint_ms": paints, "frames": frames, "events_per_second": flowed}


def judged(measured: dict[str, Any], rate: int) -> list[dict[str, Any]]:
    """Return each line of the table: what, value, bar, and whether it is kept (None: it has no bar)."""
    frames = [each for several in measured["frames"].values() for each in several]
    slowest = min(measured["frames"], key=lambda place: statistics.median(measured["frames"][place]))
    paint, median = max(measured["first_paint_ms"]), statistics.median(frames)
    of_slowest = statistics.median(measured["frames"][slowest])
    flowed, wanted = measured["events_per_second"], RATE_SHARE_MIN * rate
    found: list[tuple[str, float, str, bool | None]] = [
        ("events read a second", flowed, f">= {wanted:,.0f}", flowed >= wanted),
        (
            f"first paint, the slowest of {_OPENED}, ms",
            paint,
            f"< {FIRST_PAINT_MS_MAX:,}",
            0 < paint < FIRST_PAINT_MS_MAX,
        ),
        ("frames a second, median", median, f">= {FRAMES_MIN}", median >= FRAMES_MIN),
        (f"frames a second, median of {slowest}", of_slowest, "", None),
        ("frames a second, the least of 3 seconds", min(frames), "", None),
    ]
    return [dict(zip(("what", "value", "bar", "pass"), each, strict=True)) for each in found]


if __name__ == "__main__":
    sys.exit(main())
