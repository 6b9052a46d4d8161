"""The built page in the system's browser, beside a commerce pipeline that runs."""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from page_support import DEADLINE_S, RunningPage, browser_context, eventually, running_page

from headrace.web.page.app import PAGE_FOLDER

if TYPE_CHECKING:
    from playwright.sync_api import Locator, Page

pytestmark = [pytest.mark.slow, pytest.mark.untraced]

AXE = Path(__file__).parent.parent.parent / "ui" / "node_modules" / "axe-core" / "axe.min.js"
PLACES = ("pipeline", "dashboards", "tables", "records", "log", "logs", "alerts", "settings")
SOON_MS = 20_000


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningPage]:
    with running_page(tmp_path_factory.mktemp("browser") / "commerce") as made:
        yield made


@pytest.fixture(scope="module")
def context(running: RunningPage) -> Iterator[object]:
    with browser_context(running.address) as made:
        made.set_default_timeout(SOON_MS)
        yield made


@pytest.fixture
def tab(context: object) -> Iterator[Page]:
    opened: Page = context.new_page()  # type: ignore[attr-defined]
    problems: list[str] = []
    opened.on("pageerror", lambda error: problems.append(str(error)))
    opened.on("dialog", lambda dialog: (problems.append("a dialog opened"), dialog.dismiss()))
    opened.on("console", lambda line: problems.append(line.text) if "Content Security" in line.text else None)
    yield opened
    opened.close()
    assert problems == []


def number(text: str | None) -> int:
    return int(re.sub(r"[^\d]", "", text or "") or -1)


def test_the_numbers_of_the_page_are_the_ledgers(running: RunningPage, tab: Page) -> None:
    tab.goto("/pipeline")

    def agree() -> bool:
        ledger = running.runtime.store.ledger()
        if number(tab.get_by_test_id("read-events").text_content()) != ledger.read("events"):
            tab.wait_for_timeout(50)
            return False
        for outcome, records in ledger.outcomes("events").items():
            shown = tab.get_by_test_id(f"outcome-events-{outcome}")
            assert not records or number(shown.text_content()) == records, outcome
        return True

    eventually(agree)
    assert tab.get_by_text("✓ adds up").is_visible()


def test_malformed_records_lead_to_themselves(running: RunningPage, tab: Page) -> None:
    read = running.read()
    running.send(*[b"{broken"] * 300)
    eventually(lambda: running.read() >= read + 300)
    tab.goto("/pipeline")
    tab.get_by_role("link", name="Records").click()
    tab.get_by_role("button", name=re.compile("json.*malformed", re.DOTALL)).click()
    tab.get_by_text("{broken").first.wait_for()


def test_late_records_are_shown_by_how_much_too_late_they_came(running: RunningPage, tab: Page) -> None:
    old = "2020-01-01T00:00:00Z"
    facts = {"event_id": old, "timestamp": old, "event_type": "search", "user_id": "u", "device": "mobile"}
    running.send(json.dumps(facts).encode())
    tab.goto("/records?tab=late")
    tab.get_by_role("button", name=re.compile(r"^1 h or more too late")).click()
    band = tab.get_by_role("region", name="Rows of this band")
    band.get_by_role("heading", name="1 h or more too late").wait_for()
    band.get_by_role("cell", name=old, exact=True).wait_for()
    tab.reload()
    band.get_by_role("heading", name="1 h or more too late").wait_for()
    tab.evaluate(AXE.read_text() + ";0")
    assert tab.evaluate("async () => (await axe.run('main')).violations.map(each => each.id)") == []


def test_what_spark_says_of_a_run_is_shown_and_leads_to_its_page(
    running: RunningPage, tab: Page, monkeypatch: pytest.MonkeyPatch
) -> None:
    facts = {
        "master": "spark://host:7077",
        "application": "app-1<script>",
        "page": "http://driver:4040",
        "executors": 3,
        "batch": 12,
        "seconds": {"triggerExecution": 1.5, "addBatch": 1.2},
        "records": 3_000,
        "input_rate": 1_000.0,
        "processing_rate": None,
        "workers": [
            {
                "worker": "10.0.0.7:41287",
                "state": "alive",
                "cores": 4,
                "cores_used": 3,
                "memory_bytes": 8_000_000_000,
                "memory_used_bytes": 3_000_000_000,
            }
        ],
    }
    tab.goto("/pipeline")
    shown = tab.get_by_test_id("spark")
    assert shown.count() == 0
    monkeypatch.setattr(running.runtime.answers, "_spark", lambda: facts)
    shown.get_by_text("3 executors").wait_for()
    shown.get_by_text("app-1<script>").wait_for()
    assert tab.get_by_test_id("spark-rates").inner_text() == "1,000/s come in, – can be processed"
    assert shown.get_by_role("link").get_attribute("href") == "http://driver:4040"
    workers = shown.get_by_role("region", name="Workers of Spark")
    cells = workers.locator("tbody td").all_inner_texts()
    assert cells == ["10.0.0.7:41287", "alive", "3 of 4", "3.0 GB of 8.0 GB"]
    away = {"workers": None, "workers_problem": "http://10.0.0.1:8080: no answer in time"}
    monkeypatch.setattr(running.runtime.answers, "_spark", lambda: facts | away)
    shown.get_by_text("http://10.0.0.1:8080: no answer in time (spark.master_page)").wait_for()
    monkeypatch.setattr(running.runtime.answers, "_spark", lambda: facts | {"workers": []})
    shown.get_by_text("No worker is there").wait_for()
    monkeypatch.setattr(running.runtime.answers, "_spark", lambda: facts | {"page": "javascript:alert(1)"})
    shown.get_by_text("spark.ui.enabled").wait_for()
    assert shown.get_by_role("link").count() == 0


def test_a_table_that_lacks_its_beginning_says_since_when_it_is_complete(
    running: RunningPage, tab: Page, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = running.runtime.answers.status

    def status() -> dict[str, Any]:
        facts = asked()
        since = {"user_activity": "2026-03-01T12:05:00+00:00"}
        tables = [each | {"partial_since": since.get(each["table"])} for each in facts["tables"]]
        return facts | {"tables": tables}

    tab.goto("/tables?table=device_stats")
    tab.get_by_role("heading", name="device_stats").wait_for()
    assert tab.get_by_test_id("partial").count() == 0
    monkeypatch.setattr(running.runtime.answers, "status", status)
    tab.goto("/tables?table=user_activity")
    tab.get_by_test_id("partial").get_by_text("Complete from 2026-03-01 12:05:00 on").wait_for()


def search(running: RunningPage, user: str | int, **more: str) -> bytes:
    """Return an event of now; of a user who is a number it is malformed."""
    when = running.runtime.logs["events"].now().isoformat()
    facts = {"event_id": when, "event_type": "search", "timestamp": when, "user_id": user, "device": "mobile"}
    return json.dumps(facts | more).encode()


def corrected_and_given_back(running: RunningPage, tab: Page, identifier: str) -> Locator:
    """Send a record that is set aside, correct it on the page, and give it back; return where it stands."""
    running.send(search(running, 5, event_id=identifier))
    tab.goto("/records?group=events+malformed+column%3Auser_id")
    letter = tab.locator("[data-test=letter]").filter(has_text=identifier)
    letter.get_by_role("button", name="Fix…").click()
    box = letter.get_by_label("The corrected record")
    box.fill(box.input_value().replace('"user_id": 5', '"user_id": "u5"'))
    letter.get_by_role("button", name="Preview").click()
    letter.get_by_label("Preview").get_by_text('"u5"').wait_for()
    letter.get_by_role("button", name="Give 1 back").click()
    letter.get_by_text("1 given back").wait_for()
    letter.get_by_text("given back, and accepted").wait_for()
    return letter


def test_a_record_is_corrected_and_given_back_from_the_page(running: RunningPage, tab: Page) -> None:
    letter = corrected_and_given_back(running, tab, "fixed-here")
    tab.get_by_text("1 of them given back, and accepted since").wait_for()
    assert "ever" in (tab.locator("[data-test=aside]").text_content() or "")
    assert letter.get_by_role("button", name="Leave it").count() == 0
    eventually(
        lambda: (
            running.runtime.store.query(
                "SELECT user_id FROM events_clean WHERE event_id = 'fixed-here'"
            ).to_pylist()
            == [{"user_id": "u5"}]
        )
    )


def test_the_page_asks_no_more_for_what_was_set_aside_once_what_was_given_back_is_told(
    running: RunningPage, tab: Page
) -> None:
    corrected_and_given_back(running, tab, "followed")
    asked: list[str] = []
    tab.on("request", lambda each: asked.append(each.url) if "/api/dead-letters" in each.url else None)

    def asks_no_more() -> bool:
        asked.clear()
        for _ in range(3):
            read = running.read() + 1
            running.send(search(running, "u5"))
            eventually(lambda read=read: running.read() >= read)  # type: ignore[misc]
        shown = tab.get_by_test_id("records").locator("small")
        eventually(lambda: number(shown.text_content()) >= running.runtime.store.progress.epoch)
        return not asked

    eventually(asks_no_more)


def test_a_number_of_a_table_leads_to_its_records(running: RunningPage, tab: Page) -> None:
    tab.goto("/tables?table=event_counts&order=window_start&dir=asc")
    tab.get_by_title("Why is this number this?").first.click()
    asked = tab.get_by_role("dialog", name="Why is this number this?")
    asked.get_by_test_id("why-records").wait_for()
    told = {each.split("\n")[0]: each.split("\n")[-1] for each in asked.locator("dl > div").all_inner_texts()}
    assert number(asked.get_by_test_id("why-records").text_content()) == number(told["events"])
    record = json.loads(asked.get_by_role("row").nth(1).locator("td").last.inner_text())
    assert record["event_type"] == told["event_type"]
    tab.evaluate(AXE.read_text() + ";0")
    assert tab.evaluate("async () => (await axe.run('dialog')).violations.map(each => each.id)") == []
    tab.reload()
    asked.get_by_test_id("why-records").wait_for()
    asked.get_by_role("button", name="Close").click()
    asked.wait_for(state="detached")
    tab.wait_for_function("!location.search.includes('why=')")


def test_a_chart_is_looked_at_closer_taken_along_and_shown_large(tab: Page) -> None:
    tab.goto("/dashboards")
    panel = tab.locator("article", has=tab.get_by_role("button", name="Events per second as PNG"))
    with tab.expect_download() as picture:
        panel.get_by_role("button", name="Events per second as PNG").click()
    assert picture.value.path().read_bytes().startswith(b"\x89PNG")
    with tab.expect_download() as rows:
        panel.get_by_role("button", name="Events per second as CSV").click()
    text = rows.value.path().read_text()
    assert text.startswith("window_start,events_per_second\n20")
    first = datetime.fromisoformat(text.splitlines()[1].split(",")[0])
    over = panel.locator(".u-over").bounding_box()
    assert over is not None
    tab.mouse.move(over["x"] + over["width"] * 0.3, over["y"] + 40)
    tab.mouse.down()
    tab.mouse.move(over["x"] + over["width"] * 0.6, over["y"] + 50, steps=5)
    tab.mouse.up()
    told = tab.get_by_test_id("range")
    told.wait_for()
    part = re.search(r"range=(\d+)-(\d+)", tab.url)
    assert part is not None
    shown_s = (datetime.now(UTC) - first).total_seconds()  # there is nothing before, of the two hours
    assert 0.2 < (int(part[2]) - int(part[1])) / shown_s < 0.4  # three tenths were drawn over
    tab.reload()
    told.wait_for()
    shown = told.inner_text()
    tab.get_by_role("link", name="lines of that time").click()
    assert tab.get_by_test_id("lines-of").inner_text() == shown
    tab.go_back()
    told.wait_for()
    tab.get_by_role("button", name="Back to now").click()
    told.wait_for(state="detached")
    panel.get_by_role("button", name="larger").click()
    tab.get_by_role("dialog").get_by_role("button", name="Full screen").click()
    tab.wait_for_function("document.fullscreenElement !== null")
    tab.evaluate("document.exitFullscreen()")


def test_a_setting_is_changed_and_changed_back_from_the_page(running: RunningPage, tab: Page) -> None:
    tab.goto("/settings")
    row = tab.get_by_role("row", name=re.compile("^late_percent"))
    row.get_by_role("button", name="Change alerts.late_percent").click()
    box = tab.get_by_label("New value of alerts.late_percent")
    box.fill("eleven")
    tab.get_by_role("button", name="Preview").click()
    tab.get_by_role("alert").get_by_text("whole number").wait_for()
    box.fill("11")
    tab.get_by_role("button", name="Preview").click()
    tab.get_by_text("More than 11 % of the records of 5 minutes came too late").wait_for()
    tab.get_by_role("button", name="Change it").click()
    changes = tab.get_by_test_id("changes")
    changes.get_by_text("alerts.late_percent = 11").wait_for()
    assert any("11 %" in each["summary"] for each in running.runtime.alerts.states())
    changes.get_by_role("button", name="Undo the last").click()
    changes.wait_for(state="detached")
    assert not any("11 %" in each["summary"] for each in running.runtime.alerts.states())


def test_the_lines_of_the_journal_come_as_long_as_the_page_is_open(running: RunningPage, tab: Page) -> None:
    tab.goto("/logs")
    for most in range(1_100, 6_600, 1_100):  # more than the page shows at once
        for number in range(most - 1_100, most):
            running.runtime.journal.info("counted", number=number)
        tab.get_by_text(f"number={most - 1}", exact=True).wait_for()
    tab.get_by_label("Part", exact=True).select_option("log")
    tab.get_by_text("No line like that.").wait_for()
    tab.get_by_label("Part", exact=True).select_option("run")
    tab.get_by_text(f"number={most - 1}", exact=True).wait_for()


def test_an_alert_that_fires_is_silenced_and_told_again_from_the_page(
    running: RunningPage, tab: Page
) -> None:
    def silent() -> bool:
        (found,) = [each for each in running.runtime.alerts.states() if each["name"] == "bad_share"]
        return found["silenced_until"] is not None

    running.send(*[b"{broken"] * 2_000)
    tab.goto("/alerts")
    tab.get_by_role("button", name="Silence bad_share for 30 min").click()
    eventually(silent)
    told = tab.get_by_role("region", name="bad_share")
    told.get_by_role("button", name="Tell again").click()
    eventually(lambda: not silent())
    told.get_by_role("button", name="Silence bad_share for 30 min").wait_for()
    # On a phone the buttons stand below the words, and do not press them into a column of one each.
    tab.set_viewport_size({"width": 400, "height": 800})
    eventually(lambda: told.locator("strong").evaluate("words => words.getBoundingClientRect().width") > 250)


def test_every_page_is_reached_and_used_by_keyboard_alone(tab: Page) -> None:
    tab.goto("/pipeline")
    tab.get_by_role("link", name="Dashboards").wait_for()
    tab.keyboard.press("Tab")
    assert tab.evaluate("document.activeElement.textContent") == "Skip to the content"
    tab.keyboard.press("Enter")
    tab.wait_for_function("document.activeElement.id === 'room'")
    for place in (*PLACES[1:], PLACES[0]):
        link = tab.locator(f"nav a[href='/{place}']")
        link.focus()
        assert tab.evaluate("getComputedStyle(document.activeElement).outlineStyle") != "none", place
        tab.keyboard.press("Enter")
        tab.wait_for_url(f"**/{place}")
        tab.get_by_role("heading", level=1).wait_for()
    tab.goto("/tables?table=event_counts")
    tab.get_by_role("tab", name="Rows").focus()
    tab.keyboard.press("ArrowRight")
    tab.get_by_role("tab", name="Schema", selected=True).wait_for()
    tab.keyboard.press("ArrowLeft")
    tab.get_by_title("Why is this number this?").first.focus()
    tab.keyboard.press("Enter")
    asked = tab.get_by_role("dialog", name="Why is this number this?")
    asked.wait_for()
    tab.keyboard.press("Escape")
    asked.wait_for(state="detached")


PAYLOADS = (
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    '"><svg onload=alert(1)>',
    "javascript:alert(1)",
    "\u202etxt.exe\u2066 evil",
    "\u0000\u0007\u001b[31mred\u001b[0m",
    "x" * 200_000,
    "{{constructor.constructor('alert(1)')()}}",
    "=HYPERLINK(1)",
)


def test_payloads_in_keys_values_and_names_do_nothing(running: RunningPage, tab: Page) -> None:
    values = [
        json.dumps(
            {"event_id": payload, "event_type": payload, payload[:500]: payload, "user_id": 7}
        ).encode()
        for payload in PAYLOADS
    ]
    read = running.read()
    running.send(*values, keys=[payload[:1000].encode("utf-8", "replace") for payload in PAYLOADS])
    eventually(lambda: running.read() >= read + len(values))
    for place, shown in (
        ("/records?tab=log", tab.locator("summary")),
        ("/records?group=events+malformed+column%3Auser_id", tab.locator("[data-test=letter]")),
        ("/tables?table=dead_letters&contains=onerror", tab.get_by_role("cell")),
    ):
        tab.goto(place)
        shown.filter(has_text="onerror=alert(1)").first.wait_for()
    assert tab.locator("img[src=x], main script, svg[onload]").count() == 0
    text = tab.locator("main").inner_text()
    assert "\u202e" not in text
    assert "\u001b" not in text
    tab.set_viewport_size({"width": 390, "height": 800})
    tab.goto("/records?group=events+malformed+column%3Auser_id")
    tab.locator("[data-test=letter]").filter(has_text="onerror=alert(1)").first.wait_for()
    assert tab.evaluate("document.documentElement.scrollWidth") <= 390
    tab.goto("/tables?table=+sql")
    tab.get_by_label("Query").fill(f"SELECT '{PAYLOADS[1]}' AS \"{PAYLOADS[0]}\"")
    tab.get_by_role("button", name="Run").click()
    tab.get_by_role("columnheader", name="<script>").wait_for()
    tab.get_by_role("cell", name="<img src=x").wait_for()


def test_a_reload_keeps_the_place(tab: Page) -> None:
    tab.goto("/tables")
    tab.get_by_role("button", name=re.compile("^device_stats")).click()
    tab.get_by_role("tab", name="Schema").click()
    tab.reload()
    tab.get_by_role("tab", name="Schema", selected=True).wait_for()
    assert tab.get_by_role("heading", name="device_stats").is_visible()
    tab.get_by_role("button", name="Dark").click()
    tab.reload()
    assert tab.locator("html[data-theme=dark]").count() == 1
    tab.get_by_role("button", name="Light").click()


@pytest.mark.parametrize("place", PLACES)
def test_a_page_shows_itself_and_axe_finds_nothing(running: RunningPage, tab: Page, place: str) -> None:
    tab.goto(f"/{place}")
    tab.get_by_role("heading", level=1).wait_for()
    tab.wait_for_load_state("load")
    tab.get_by_text("…", exact=True).first.wait_for(state="detached")
    tab.evaluate(AXE.read_text() + ";0")  # not as a script of the page: its policy allows no stranger's
    for theme in ("light", "dark"):
        tab.evaluate("theme => document.documentElement.dataset.theme = theme", theme)
        found = tab.evaluate("async () => (await axe.run()).violations")
        problems = [(each["id"], [node["html"][:120] for node in each["nodes"]][:3]) for each in found]
        assert problems == [], theme


def test_the_built_page_is_small(context: object) -> None:
    packed = [gzip.compress(each.read_bytes()) for each in PAGE_FOLDER.rglob("*.*") if each.is_file()]
    assert sum(len(each) for each in packed) < 600_000


def test_every_page_fits_a_phone(tab: Page) -> None:
    tab.set_viewport_size({"width": 390, "height": 800})
    for place in PLACES:
        tab.goto(f"/{place}")
        tab.get_by_role("heading", level=1).wait_for()
        wide = tab.evaluate("document.documentElement.scrollWidth")
        assert wide <= 390, place


def test_words_of_a_pie_and_of_the_settings_can_be_read_wherever_they_stand(tab: Page) -> None:
    for width in (1280, 390):
        tab.set_viewport_size({"width": width, "height": 860})
        tab.goto("/dashboards")
        names = tab.locator(".pie li bdi")
        names.first.wait_for()
        cut = names.evaluate_all(
            "all => all.filter(one => one.scrollWidth > one.clientWidth).map(one => one.textContent)"
        )
        assert cut == [], width
    tab.goto("/settings")
    helps = tab.get_by_role("cell", name="the least level of lines that the run writes about itself")
    helps.wait_for()
    assert helps.evaluate("one => one.clientWidth") > 200


def test_on_a_phone_a_chosen_table_is_in_sight_and_so_is_the_page_in_the_list_of_pages(tab: Page) -> None:
    tab.set_viewport_size({"width": 390, "height": 800})
    tab.goto("/tables")
    tab.get_by_role("button", name="sessions").click()
    tab.get_by_role("heading", level=2, name="sessions").wait_for()
    title = tab.get_by_role("heading", level=2, name="sessions")
    assert title.evaluate("one => one.getBoundingClientRect().bottom < innerHeight")
    tab.goto("/settings")
    tab.wait_for_function(
        "() => { const [page, pages] = ['[aria-current=page]', 'nav'].map(one => "
        "document.querySelector(`.side ${one}`)?.getBoundingClientRect());"
        " return page && page.left >= pages.left - 1 && page.right <= pages.right + 1; }"
    )


def test_the_page_says_when_the_pipeline_is_gone_and_that_it_comes_back(
    tmp_path: Path, context: object
) -> None:
    tab: Page = context.new_page()  # type: ignore[attr-defined]
    with running_page(tmp_path / "gone", events_hours=0.01) as going:
        tab.goto(going.address + "/pipeline")
        tab.get_by_text("commerce: healthy").wait_for()
    tab.get_by_text("This page has lost the pipeline.").wait_for(timeout=DEADLINE_S * 1000)
    tab.close()
