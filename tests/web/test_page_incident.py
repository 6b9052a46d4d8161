"""Every page of a run beside which generators make an incident, each of them a process of its own."""

from __future__ import annotations

import csv
import re
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from page_process import AT_LAST_MS, AT_LAST_S, OwnCommand, agreed_balance, answer_of
from page_support import PLACES, browser_context

from headrace.cli.app import run
from headrace.operate import connect, find_home
from servers.guard import wait_until

if TYPE_CHECKING:
    from pathlib import Path

    from playwright.sync_api import Locator, Page

pytestmark = [pytest.mark.slow, pytest.mark.untraced]

FAILING_RATE, SPOILING_RATE = 200, 100
SET_ASIDE = ("malformed", "rejected", "future")


def number(text: str | None) -> int:
    return int(re.sub(r"\D", "", text or "") or -1)


def go_to(tab: Page, place: str) -> None:
    """By its link, as a person does: the page is never loaded anew."""
    tab.locator(f"nav a[href='/{place}']").click()
    tab.get_by_role("heading", level=1, name=place.capitalize(), exact=True).wait_for()


def see_the_incident(tab: Page) -> None:
    """Open every page while it goes on, and find it on each that is about it."""
    go_to(tab, "pipeline")
    wrong = tab.get_by_test_id("wrong")
    wrong.get_by_text("of the records of the last five minutes were set aside").wait_for()
    wrong.get_by_text("of a service's log lines of the last 5 minutes, 100 at least, are errors").wait_for()
    go_to(tab, "dashboards")
    tab.locator("button[aria-label='Error share by service as PNG']:enabled").wait_for()
    tab.locator("button[aria-label='Malformed records as PNG']:enabled").wait_for()
    go_to(tab, "tables")
    tab.get_by_role("navigation", name="Tables").get_by_role("button", name="service_health").click()
    rows = tab.get_by_role("region", name="service_health")
    rows.get_by_title("Why is this number this?").first.wait_for()
    go_to(tab, "records")
    tab.get_by_role("button", name=re.compile("json.*malformed", re.DOTALL)).click()
    tab.get_by_test_id("letter").filter(has_text="GET /health").first.wait_for()
    go_to(tab, "log")
    tab.get_by_role("region", name="Readers of events").get_by_role("cell", name="engine").wait_for()
    go_to(tab, "logs")
    tab.get_by_label("Part", exact=True).select_option("alerts")
    tab.get_by_role("log").get_by_text("failing_service").first.wait_for()
    go_to(tab, "alerts")
    tab.get_by_role("region", name="failing_service").get_by_text("critical, firing").wait_for()
    go_to(tab, "settings")
    # Of two generators of a stream, the first one's that says it.
    tab.get_by_role("row", name=re.compile(rf"^events\.rate ({FAILING_RATE}|{SPOILING_RATE}) ")).wait_for()


def sum_of(cells: Locator) -> int:
    return sum(number(each) for each in cells.all_inner_texts())


def outcomes_of_the_panel(tab: Page) -> dict[str, int]:
    """What the panel of outcomes by minute adds up to, taken along as CSV."""
    with tab.expect_download() as taken:
        tab.locator("button[aria-label='Outcomes as CSV']:enabled").click()
    sums: dict[str, int] = {}
    for row in csv.DictReader(taken.value.path().read_text().splitlines()):
        sums[row["outcome"]] = sums.get(row["outcome"], 0) + int(row["records"])
    return sums


def outcomes_of_the_console(tab: Page) -> dict[str, int]:
    """The same, asked for in SQL on the page of tables."""
    tab.get_by_role("navigation", name="Tables").get_by_role("button", name="SQL console").click()
    asked = "SELECT outcome, sum(records) FROM outcomes_by_minute GROUP BY outcome"
    tab.get_by_label("Query").fill(asked)
    tab.get_by_role("button", name="Run").click()
    rows = tab.get_by_label("The answer").get_by_role("row")
    rows.nth(1).wait_for()
    told = [row.get_by_role("cell").all_inner_texts() for row in rows.all()]
    return {row[-2]: number(row[-1]) for row in told if row}


def pages_agree(tab: Page, shown: dict[str, Any]) -> None:
    """Open every page again, now that numbers rest, and find those of the balance on each."""
    outcomes = shown["outcomes"]
    aside = sum(outcomes.get(name, 0) for name in SET_ASIDE)
    reasons = tab.get_by_role("navigation", name="Reasons").locator(".num")
    parts = tab.get_by_role("region", name="Partitions of events").locator("tbody td:nth-child(4)")
    holds = {
        "dashboards": lambda: outcomes_of_the_panel(tab) == outcomes,
        "tables": lambda: outcomes_of_the_console(tab) == outcomes,
        "records": lambda: sum_of(reasons) == aside,
        "log": lambda: sum_of(parts) == shown["read"],
    }

    def head() -> list[int]:
        return [
            number(re.match(r"[\d,]*", tab.get_by_test_id(name).inner_text())[0])  # type: ignore[index]
            for name in ("records", "aside")
        ]

    def agrees(place: str) -> bool:
        tab.wait_for_timeout(50)
        return head() == [shown["read"], aside] and holds.get(place, lambda: True)()

    for place in PLACES:
        go_to(tab, place)
        what = f"the page '{place}' shows what the ledger says"
        wait_until(partial(agrees, place), what=what, seconds=AT_LAST_S)


def test_an_incident_of_generators_is_seen_and_the_numbers_of_every_page_are_the_ledgers(
    tmp_path: Path,
) -> None:
    company = tmp_path / "company"
    assert run(["new", "--blueprint", "operations", str(company)]) == 0
    problems: list[str] = []

    def generating(incident: str, rate: int) -> OwnCommand:
        words = ("generate", "operations", "--incident", incident, "--rate", str(rate), "--seed", "5")
        return OwnCommand(*words, folder=company, output=tmp_path / f"{incident}.out")

    with OwnCommand("run", folder=company, output=tmp_path / "run.out") as running:
        address = running.says(r"^the page is at (http://\S+)\n")
        with generating("errors", FAILING_RATE) as failing, browser_context(address) as context:
            context.set_default_timeout(AT_LAST_MS)
            tab = context.new_page()
            tab.on("pageerror", lambda error: problems.append(str(error)))
            tab.goto("/")
            with generating("malformed", SPOILING_RATE) as spoiling:
                see_the_incident(tab)
                said = (failing.interrupt(), spoiling.interrupt())
            made = [number(re.findall(r"^([\d,]+) events in ", each, re.MULTILINE)[-1]) for each in said]
            client = connect(find_home(company))
            wait_until(
                lambda: client.ledger()["streams"]["events"]["read"] == sum(made),
                what="all that was made is read",
                seconds=AT_LAST_S,
            )
            go_to(tab, "pipeline")
            tab.get_by_text("✓ adds up").wait_for()
            shown = agreed_balance(tab, client)
            client.close()
            pages_agree(tab, shown)
        assert "the ledger balances" in running.interrupt()
    assert problems == []
    ledger = answer_of("ledger", "--json", folder=company)
    events = ledger["streams"]["events"]
    kept = {name: records for name, records in events["outcomes"].items() if records}
    assert ledger["balanced"]
    assert (events["read"], kept) == (shown["read"], shown["outcomes"])
