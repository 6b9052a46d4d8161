"""What pages show is what the run, its store and its log say; of a run that has read nothing, what to do."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from page_support import RunningPage, browser_context, eventually, running_page

from headrace.blueprints import make_generator, write_project
from headrace.operate import Runtime, load_project, open_log
from headrace.operate.page_options import PageOptions
from headrace.produce.generator import run_generator
from headrace.web.page.serve import served_page
from servers.guard import free_ports

if TYPE_CHECKING:
    from pathlib import Path

    from playwright.sync_api import Locator, Page

pytestmark = [pytest.mark.slow, pytest.mark.untraced]

AT_LAST_MS = 60_000


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningPage]:
    with running_page(tmp_path_factory.mktemp("shows") / "commerce", events_hours=0.12) as made:
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


def rows_of(table: Locator) -> list[list[str]]:
    """What stands in the cells of a plain table, without the marks between thousands."""
    return [
        [re.sub(r"(?<=\d),(?=\d)", "", text.strip()) for text in row.locator("td").all_inner_texts()]
        for row in table.locator("tbody tr").all()
    ]


def event(page: RunningPage, name: str) -> bytes:
    at = page.runtime.logs["events"].now().isoformat()
    known = {"event_type": "search", "user_id": "u", "device": "mobile", "timestamp": at}
    return json.dumps({"event_id": name, **known}).encode()


def test_the_delay_is_how_long_a_record_waits_and_not_how_old_the_last_one_is(
    page: RunningPage, tab: Page, monkeypatch: pytest.MonkeyPatch
) -> None:
    really = page.runtime.answers.status

    def standing(**facts: Any) -> Callable[[], Any]:
        def status() -> Any:
            document = really()
            stream = document["streams"]["events"]
            stream.update(facts)
            old = (datetime.now(UTC) - timedelta(hours=3)).isoformat()  # nobody has sent anything since
            for place in stream["partitions"]:
                place["frontier"] = old
            return document

        return status

    def told(words: str) -> None:
        tab.get_by_test_id("delay").filter(has_text=re.compile(words)).wait_for()

    monkeypatch.setattr(page.runtime.answers, "status", standing(lag_records=0, lag_seconds=0.0))
    tab.goto("/pipeline")
    told("^0 ms$")
    monkeypatch.setattr(page.runtime.answers, "status", standing(lag_records=1_234, lag_seconds=42.0))
    told("^42 s *1,234 to read$")
    monkeypatch.setattr(page.runtime.answers, "status", standing(lag_records=None, lag_seconds=None))
    told("^–$")


def test_what_a_generator_spoils_is_said_while_it_runs_and_its_numbers_are_the_ledgers(
    page: RunningPage, tab: Page
) -> None:
    tab.goto("/pipeline")
    stop, log = threading.Event(), open_log(page.project, "events")
    spoiling = make_generator("commerce", seed=3, settings=["malformed_share=0.5"])
    producer = threading.Thread(target=lambda: run_generator(spoiling, log, rate=200.0, stop=stop))
    producer.start()
    try:
        told = re.compile(r"% of the records of the last five minutes were set aside")
        tab.get_by_test_id("wrong").get_by_text(told).wait_for()
    finally:
        stop.set()
        producer.join()
        log.close()

    def agree() -> bool:
        tab.wait_for_timeout(50)
        shown = {
            name: re.sub(r"\D", "", tab.get_by_test_id(name).text_content() or "")
            for name in ("read-events", "outcome-events-malformed")
        }
        ledger = page.runtime.store.ledger()
        kept = (str(ledger.read("events")), str(ledger.outcomes("events")["malformed"]))
        return tuple(shown.values()) == kept

    eventually(agree)


def test_epochs_are_shown_with_the_time_of_each_stage(page: RunningPage, tab: Page) -> None:
    tab.goto("/pipeline")
    page.send(event(page, "one"), event(page, "two"))
    table = tab.get_by_role("region", name="The last epochs")

    def shown() -> bool:
        last = page.runtime.store.query("SELECT epoch, records FROM epochs ORDER BY epoch DESC LIMIT 1")
        (kept,) = last.to_pylist()
        tab.wait_for_timeout(50)
        first = rows_of(table)[:1]
        return [row[0] for row in first] == [str(kept["epoch"])] and first[0][2] == str(kept["records"])

    eventually(shown)
    said = table.locator("tbody tr").first.locator("[title]").get_attribute("title") or ""
    stages = [part.split(" ")[0] for part in said.split(", ")]
    assert stages == ["read", "rows", "duplicates", "compute", "write", "commit"]


def test_the_frontier_of_each_partition_is_shown_against_the_clock(page: RunningPage, tab: Page) -> None:
    tab.goto("/pipeline")
    card = tab.get_by_role("region", name="Frontier")
    card.get_by_text(re.compile(r"\d\d:\d\d:\d\d.*, .* behind")).first.wait_for()
    names = [each.strip() for each in card.locator("bdi").all_inner_texts()]
    assert names == ["events 0", "events 1", "events 2"]


def test_a_log_is_shown_with_its_partitions_its_settings_and_who_reads_it(
    page: RunningPage, tab: Page
) -> None:
    page.send(event(page, "three"))
    eventually(lambda: page.read() == sum(each.end for each in page.runtime.logs["events"].partitions()))
    tab.goto("/log")
    partitions = tab.get_by_role("region", name="Partitions of events")

    def places() -> list[list[str]]:
        tab.wait_for_timeout(50)
        return [row[:4] for row in rows_of(partitions)]

    wanted = [
        [str(each.partition), str(each.start), str(each.end), str(each.end - each.start)]
        for each in page.runtime.logs["events"].partitions()
    ]
    eventually(lambda: places() == wanted)
    shares = [float(row[5].rstrip(" %")) for row in rows_of(partitions)]
    assert sum(shares) == pytest.approx(100, abs=2)
    readers = tab.get_by_role("region", name="Readers of events")
    eventually(lambda: [[row[0], row[2]] for row in rows_of(readers)] == [["engine", "0"]])
    tab.get_by_text("settings", exact=True).click()
    tab.get_by_text("retention", exact=True).wait_for()


def test_who_looks_into_the_log_sees_what_arrives_while_following_and_not_without(
    page: RunningPage, tab: Page
) -> None:
    tab.goto("/records?tab=log")
    looked = tab.get_by_role("region", name="Records in the log")
    looked.locator("summary").first.wait_for()
    page.send(event(page, "it-arrives"))
    looked.locator("summary").filter(has_text="it-arrives").wait_for()
    looked.get_by_label("Records where").fill("event_type = 'search' AND event_id = 'it-arrives'")
    looked.get_by_role("button", name="Choose").click()

    def found() -> list[str]:
        tab.wait_for_timeout(50)
        return looked.locator("summary").all_inner_texts()

    eventually(lambda: len(found()) == 1)
    assert "it-arrives" in looked.locator("summary").inner_text()


@pytest.mark.parametrize("name", ["event_counts", "sessions", "events_clean"])
def test_a_table_is_shown_with_its_class_its_size_and_through_when_it_is_closed(
    page: RunningPage, tab: Page, name: str
) -> None:
    (plan,) = (each for each in page.runtime.plan.tables if each.name == name)
    tab.goto(f"/tables?table={name}")
    said = tab.get_by_role("region", name=name).locator("p").first

    def agrees() -> bool:
        state = next(each for each in page.runtime.store.status().tables if each.table == name)
        closed, through = "", state.closed_through
        if through is not None:
            parts = f".{through.microsecond // 1_000:03d}" if through.microsecond else ""
            closed = re.escape(f", closed through {through:%Y-%m-%d %H:%M:%S}{parts}")
        elif plan.window is not None:
            return False  # the history is older than the lateness: it will be
        tab.wait_for_timeout(50)
        text = re.sub(r"(?<=\d),(?=\d)", "", said.inner_text())
        assert text.startswith(plan.kind.value)
        rest = r"(, kept [^,]+)?(, \d+ corrections)?$"
        return re.search(f", {state.rows} groups or rows kept{closed}{rest}", text) is not None

    eventually(agrees)


def test_a_table_is_shown_with_its_columns_their_types_and_its_key(page: RunningPage, tab: Page) -> None:
    (plan,) = (each for each in page.runtime.plan.tables if each.name == "event_counts")
    tab.goto("/tables?table=event_counts")
    region = tab.get_by_role("region", name="event_counts")
    region.get_by_role("tab", name="Schema").click()
    schema = region.get_by_role("tabpanel", name="Schema").get_by_role("table")
    schema.wait_for()
    assert rows_of(schema) == [
        [column.name, column.type, "yes" if column.name in plan.key else ""] for column in plan.columns
    ]


def test_a_panel_shows_what_comes_while_it_is_open_and_for_the_time_that_is_chosen(
    page: RunningPage, tab: Page
) -> None:
    tab.goto("/dashboards")
    tab.locator("button[aria-label='Countries as CSV']:enabled").wait_for()  # it may move until it is drawn
    tab.get_by_role("button", name="Countries, larger").click()
    panel = tab.get_by_role("dialog", name="Countries")
    panel.get_by_text("Query and rows").click()
    rows = panel.get_by_label("Rows of Countries")
    rows.get_by_role("cell").first.wait_for()
    at = page.runtime.logs["events"].now().isoformat()
    known = {"event_type": "search", "user_id": "u", "device": "mobile", "timestamp": at, "location": "QX"}
    page.send(*(json.dumps({"event_id": f"from-{n}", **known}).encode() for n in range(300)))
    rows.get_by_role("cell", name="QX", exact=True).wait_for()
    tab.keyboard.press("Escape")
    chosen = tab.get_by_role("combobox", name="Time range")
    chosen.select_option(label="15 minutes")
    tab.wait_for_url("**/dashboards?range=15")
    tab.reload()
    assert chosen.input_value() == "15"


def test_lines_of_the_journal_are_chosen_by_level_and_by_text(page: RunningPage, tab: Page) -> None:
    page.runtime.journal.info("a quiet one", mark="first")
    page.runtime.journal.warning("a loud one", mark="second")
    tab.goto("/logs")
    lines = tab.get_by_role("log")
    lines.get_by_text("a quiet one").wait_for()
    lines.get_by_text("a loud one").wait_for()
    tab.get_by_label("Level").select_option("warning")
    lines.get_by_text("a quiet one").wait_for(state="detached")
    lines.get_by_text("a loud one").wait_for()
    tab.get_by_label("Level").select_option("info")
    tab.get_by_label("Lines that contain").fill("first")
    lines.get_by_text("a loud one").wait_for(state="detached")
    lines.get_by_text("a quiet one").wait_for()


def test_settings_that_need_a_restart_offer_no_change(page: RunningPage, tab: Page) -> None:
    tab.goto("/settings")
    changes = tab.get_by_role("row", name=re.compile("^epoch_rows_max"))
    changes.get_by_role("button", name=re.compile("^Change ")).wait_for()
    restarts = tab.get_by_role("row", name=re.compile("^memory_limit"))
    restarts.wait_for()
    assert restarts.get_by_role("button").count() == 0


@contextmanager
def idle_page(folder: Path, port: int) -> Iterator[str]:
    """The address of a page whose run has read nothing yet."""
    if not folder.exists():
        write_project("commerce", folder)
    project = load_project(folder)
    project = replace(project, profile=replace(project.profile, page=PageOptions(port=port)))
    runtime, told = Runtime.open(project), list[str]()
    try:
        with served_page(runtime, told.append) as served:
            assert served.address, told
            yield served.address
    finally:
        runtime.close()


def test_the_pages_of_a_run_that_has_read_nothing_say_what_is_missing(tmp_path: Path, tab: Page) -> None:
    with idle_page(tmp_path / "empty", 0) as address:
        for place, words in (
            ("/pipeline", "No epoch yet: nothing has arrived in the log."),
            ("/records", "Nothing was set aside."),
            ("/records?tab=late", "Nothing came late."),
            ("/records?tab=log", "`headrace produce` and `headrace generate` append."),
            ("/tables?table=event_counts", "No rows yet."),
            ("/alerts", "No alert has changed its state in this run."),
            ("/dashboards", "Its query gives no rows yet."),
        ):
            tab.goto(address + place)
            tab.get_by_text(words).first.wait_for()


def test_a_page_that_has_lost_its_run_goes_on_by_itself_with_the_next_one(tmp_path: Path, tab: Page) -> None:
    (port,) = free_ports(1)
    lost = tab.get_by_text("This page has lost the pipeline.")
    with idle_page(tmp_path / "again", port) as address:
        tab.goto(address + "/pipeline")
        tab.get_by_text("commerce: healthy").wait_for()
    lost.wait_for()
    with idle_page(tmp_path / "again", port):
        lost.wait_for(state="detached")
        tab.get_by_text("commerce: healthy").wait_for()
