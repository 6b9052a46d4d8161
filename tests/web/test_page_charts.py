"""What charts show beside a load of records in seconds, and of a run that has not lasted long."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest
from page_support import RunningPage, browser_context, eventually, running_page

if TYPE_CHECKING:
    from playwright.sync_api import Locator, Page

pytestmark = [pytest.mark.slow, pytest.mark.untraced]

SOON_MS = 20_000
LOADED = 60_000
# The first and the highest pixel of a series, as shares of the canvas from its left and from its top.
DRAWN = """canvas => {
  const wanted = getComputedStyle(document.documentElement).getPropertyValue("--flow").trim();
  const [r, g, b] = [1, 3, 5].map(at => parseInt(wanted.slice(at, at + 2), 16));
  const {width, height} = canvas;
  const pixels = canvas.getContext("2d").getImageData(0, 0, width, height).data;
  let left = width, highest = height;
  for (let y = 0; y < height; y += 1)
    for (let x = 0; x < width; x += 1) {
      const at = 4 * (y * width + x);
      if (pixels[at + 3] < 200) continue;
      if ([r, g, b].some((each, place) => Math.abs(each - pixels[at + place]) > 12)) continue;
      left = Math.min(left, x);
      if (x < width / 2) highest = Math.min(highest, y);
    }
  return [left / width, highest / height];
}"""


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningPage]:
    with running_page(tmp_path_factory.mktemp("charts") / "commerce", events_hours=0.3) as made:
        yield made


@pytest.fixture(scope="module")
def context(page: RunningPage) -> Iterator[object]:
    with browser_context(page.address) as made:
        made.set_default_timeout(SOON_MS)
        yield made


@pytest.fixture
def tab(context: object) -> Iterator[Page]:
    opened: Page = context.new_page()  # type: ignore[attr-defined]
    yield opened
    opened.close()


def drawn(chart: Locator) -> tuple[float, float]:
    """Where the first series begins from the left, and how far its older half reaches from the top."""
    left, highest = chart.locator("canvas").evaluate(DRAWN)
    return left, highest


def test_a_load_of_seconds_leaves_the_usual_traffic_to_be_seen_and_is_said(
    page: RunningPage, tab: Page
) -> None:
    at = page.runtime.logs["events"].now().isoformat()
    known = {"event_type": "search", "user_id": "u", "device": "mobile", "timestamp": at}
    read = page.read()
    page.send(*(json.dumps({"event_id": f"load-{n}", **known}).encode() for n in range(LOADED)))
    eventually(lambda: page.read() >= read + LOADED)
    tab.goto("/dashboards")
    chart = tab.get_by_role("article", name="Events per second", exact=True)
    chart.get_by_role("button", name="peaks up to 1,0").click()  # 60,000 in a minute, and what was there
    back = chart.get_by_role("button", name="cut the peaks off")
    back.wait_for()
    eventually(lambda: drawn(chart)[1] > 0.7)  # beside the load, all else lies at the bottom
    back.click()
    eventually(lambda: drawn(chart)[1] < 0.5)


def test_the_minute_that_is_not_over_yet_is_drawn_lighter_and_said(page: RunningPage, tab: Page) -> None:
    tab.goto("/dashboards")
    chart = tab.get_by_role("article", name="Outcomes over time", exact=True)
    over = chart.locator(".u-over")

    def told_at(share: float) -> str:
        """What is told of a place of the chart, with a record in the minute of now."""
        page.send(b"{broken")
        held = over.bounding_box()
        assert held is not None
        over.hover(position={"x": held["width"] * share, "y": 20})
        return chart.locator(".u-legend").inner_text()

    eventually(lambda: "not over yet" in told_at(0.99))
    assert "not over yet" not in told_at(0.1)
    shown = chart.get_by_role("img")
    eventually(
        lambda: (
            bool(told_at(0.1)) and "lighter at the end is not over" in (shown.get_attribute("title") or "")
        )
    )
    measured = tab.get_by_test_id("run-Memory").get_by_role("img")
    assert measured.get_attribute("title") is None, "what was measured at an instant is over"


def test_charts_of_a_run_begin_where_the_run_began(page: RunningPage, tab: Page) -> None:
    tab.goto("/dashboards?range=120")
    chart = tab.get_by_test_id("run-Memory")
    chart.locator("canvas").wait_for()
    eventually(lambda: drawn(chart)[0] < 0.95)
