"""The graph of the flow: every edge says how fast it flows, what waits there and how old it is."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from page_support import RunningPage, browser_context, running_page

from headrace.observe import Sample
from headrace.web.page.sources import latencies_of

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = [pytest.mark.slow, pytest.mark.untraced]

AXE = Path(__file__).parent.parent.parent / "ui" / "node_modules" / "axe-core" / "axe.min.js"
AT_LAST_MS = 60_000
EDGES = ("log", "rows", "tables", "replicas")


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningPage]:
    with running_page(tmp_path_factory.mktemp("flow") / "commerce", events_hours=0.01) as made:
        yield made


@pytest.fixture(scope="module")
def context(page: RunningPage) -> Iterator[object]:
    with browser_context(page.address) as made:
        made.set_default_timeout(AT_LAST_MS)
        yield made


@pytest.fixture
def tab(context: object) -> Iterator[Page]:
    opened: Page = context.new_page()  # type: ignore[attr-defined]
    yield opened
    opened.close()


@pytest.fixture
def stands(page: RunningPage, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Let the run say that it stands so; everything else is as it is."""
    really = page.runtime.answers.status

    def let(*, sent: int = 0, **facts: Any) -> None:
        given = {"rows": sent}

        def status() -> Any:
            document = really()
            stream = document["streams"]["events"]
            stream["partitions"][0].update(facts.get("partition", {}))
            stream.update(facts.get("stream", {}))
            given["rows"] += sent
            replicas = facts.get("replica") and [
                {**REPLICA, "tables": [_table(given["rows"])], **facts["replica"]}
            ]
            return document | {"replicas": replicas or []} | facts.get("document", {})

        monkeypatch.setattr(page.runtime.answers, "status", status)

    return let


REPLICA = {
    "replica": "copy", "kind": "parquet", "state": "following", "why": "", "fix": "", "epoch": 1,
    "rows_refused": 0, "lag_epochs": 0, "lag_seconds": 0.0, "store_epoch": 1,
}  # fmt: skip


def _table(rows_sent: int) -> dict[str, Any]:
    return {"table": "funnel", "epoch": 1, "rows_sent": rows_sent, "problem": ""}


def events(page: RunningPage, name: str, count: int, seconds_old: int) -> list[bytes]:
    at = (page.runtime.logs["events"].now() - timedelta(seconds=seconds_old)).isoformat()
    known = {"event_type": "search", "user_id": "u", "device": "mobile", "timestamp": at}
    return [json.dumps({"event_id": f"{name}-{number}", **known}).encode() for number in range(count)]


def test_what_flows_is_on_the_edges_while_it_flows(page: RunningPage, tab: Page) -> None:
    tab.goto("/pipeline")
    for edge in EDGES[:3]:
        tab.locator(f"[data-test=edge-{edge}].dry").wait_for()
    page.send(*events(page, "flows", 2_000, seconds_old=20))
    for edge in EDGES[:3]:
        told = tab.get_by_test_id(f"edge-{edge}")
        told.filter(has_text=re.compile(r": [1-9][\d.,k]* records a second")).wait_for()
    # They were 20 seconds old; how long it took to append them is in that number, and nothing after it.
    tab.get_by_test_id("edge-log").filter(has_text=re.compile(r"2\d s old when they arrive")).wait_for()
    tab.get_by_test_id("edge-tables").filter(has_text="from reading to the commit").wait_for()
    for edge in EDGES[:3]:
        tab.locator(f"[data-test=edge-{edge}].dry").wait_for()


def test_an_edge_says_what_waits_there_how_old_it_is_and_how_bad_that_is(
    tab: Page, stands: Callable[..., None]
) -> None:
    behind = {"lag_records": 1_234, "lag_seconds": 42.0}
    stands(stream=behind, partition=behind, replica={"lag_epochs": 3, "lag_seconds": 75.0}, sent=100)
    tab.goto("/pipeline")
    read, copied = tab.get_by_test_id("edge-rows"), tab.get_by_test_id("edge-replicas")
    read.get_by_text(
        "From the log to the row stage: 0.0 records a second, 1,234 to read, 42 s behind."
    ).wait_for()
    assert "warn" in (read.get_attribute("class") or "").split()
    copied.filter(has_text="3 epochs not copied yet, 75 s behind.").wait_for()
    copied.filter(has_text=re.compile(r"replicas: [1-9][\d.]* rows a second")).wait_for()
    flow = tab.get_by_role("region", name="The flow")
    flow.get_by_text(re.compile(r"^(–|[\d.]+/s), 42 s behind$")).wait_for()
    flow.get_by_text(re.compile(r"^following, [\d.]+/s, 3 epochs \(75 s\) behind$")).wait_for()
    stands(document={"waiting": "the brokers do not answer"}, replica={"state": "refused"})
    tab.locator("[data-test=edge-rows].bad").filter(has_text="the log is away").wait_for()
    tab.locator("[data-test=edge-replicas].bad").wait_for()


def test_the_edges_can_be_read_on_a_phone_and_a_desk_in_both_themes(
    tab: Page, stands: Callable[..., None]
) -> None:
    behind = {"lag_records": 123_456_789, "lag_seconds": 4_200.0}
    stands(
        stream=behind,
        partition=behind,
        replica={"lag_epochs": 3_000, "lag_seconds": 75.0, "state": "waiting"},
    )
    for width in (390, 1_280, 1_600):
        tab.set_viewport_size({"width": width, "height": 860})
        tab.goto("/pipeline")
        tab.get_by_test_id("edge-rows").filter(has_text="123.5m to read, 70 min behind").wait_for()
        wide = tab.evaluate("document.documentElement.scrollWidth")
        assert wide <= width
        for edge in EDGES:
            told = tab.get_by_test_id(f"edge-{edge}").locator(".told")
            box = told.bounding_box()
            assert box is not None and box["x"] >= 0 and box["x"] + box["width"] <= width, (edge, width)
            assert told.evaluate("told => told.scrollWidth <= told.clientWidth"), (edge, width)
        tab.evaluate(AXE.read_text() + ";0")
        for theme in ("light", "dark"):
            tab.evaluate("theme => document.documentElement.dataset.theme = theme", theme)
            found = tab.evaluate("async () => (await axe.run('.flow')).violations.map(each => each.id)")
            assert found == [], (width, theme)


def test_latencies_are_sums_by_stream_and_by_what_they_count_from() -> None:
    labels = {"stream": "events", "since": "read"}
    samples = [
        Sample("headrace_latency_seconds_count", labels, 4),
        Sample("headrace_latency_seconds_sum", labels, 0.5),
        Sample("headrace_latency_seconds", {**labels, "quantile": "0.5"}, 0.1),
        Sample("headrace_epoch_seconds_count", {"stage": "all"}, 2),
    ]
    assert latencies_of(samples) == {"events": {"read": {"records": 4, "seconds": 0.5}}}
