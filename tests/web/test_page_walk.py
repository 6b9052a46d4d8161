"""The walk of somebody new: start the demo, open its page, mend a record that was set aside, see it count."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import pytest
from page_process import AT_LAST_MS, OwnCommand, agreed_balance, answer_of, balance_of
from page_support import browser_context

from headrace.operate import connect, find_home

if TYPE_CHECKING:
    from pathlib import Path

    from playwright.sync_api import Page

pytestmark = [pytest.mark.slow, pytest.mark.untraced]

MENDABLE = re.compile("column:(event_id|timestamp|user_id)")
"""What the shop's generator spoils in a way that can be seen and undone."""


def mended(record: str) -> str:
    """The record as its writer meant it, as somebody reads it who looks at the others."""
    named = record.replace('"eventId"', '"event_id"').replace('"not a time ', '"')
    return re.sub(r'"user_id":4200(\d+)', r'"user_id":"user_\1"', named)


def mend_one(tab: Page) -> dict[str, Any]:
    """Correct a record on the page until it says that it was accepted; return what it is now."""
    tab.locator("nav a[href='/records']").click()
    reasons = tab.get_by_role("navigation", name="Reasons")
    reasons.get_by_role("button", name=MENDABLE).first.click()
    chosen = tab.get_by_role("region", name="Records of this reason")
    chosen.get_by_role("heading", name=MENDABLE).wait_for()
    address = chosen.get_by_test_id("letter").first.locator("code").first.inner_text()
    # By its address: others come while it is corrected.
    letter = chosen.get_by_test_id("letter").filter(has=tab.get_by_text(address, exact=True))
    letter.get_by_role("button", name="Fix…").click()
    box = letter.get_by_label("The corrected record")
    corrected = mended(box.input_value())
    assert corrected != box.input_value()
    box.fill(corrected)
    letter.get_by_role("button", name="Preview").click()
    letter.get_by_test_id("verdict").get_by_text("It would be accepted").wait_for()
    letter.get_by_role("button", name="Give 1 back").click()
    letter.get_by_text("given back, and accepted").wait_for()
    record: dict[str, Any] = json.loads(corrected)
    return record


def pause_the_shop(tab: Page) -> None:
    """Let nobody come in any more, so that numbers rest."""
    tab.locator("nav a[href='/settings']").click()
    tab.get_by_role("button", name="Change producers.events.rate").click()
    tab.get_by_label("New value of producers.events.rate").fill("paused")
    tab.get_by_role("button", name="Preview").click()
    tab.get_by_role("button", name="Change it").click()
    tab.get_by_test_id("changes").get_by_text("producers.events.rate").first.wait_for()


def test_somebody_starts_the_demo_mends_a_bad_record_on_its_page_and_finds_it_counted(
    tmp_path: Path,
) -> None:
    shop = tmp_path / ".headrace-demo" / "commerce"
    with OwnCommand("demo", "commerce", "--seed", "5", folder=tmp_path, output=tmp_path / "demo.out") as demo:
        address = demo.says(r"^the page is at (http://\S+)\n")
        with browser_context(address) as context:
            context.set_default_timeout(AT_LAST_MS)
            tab = context.new_page()
            tab.goto("/")
            tab.get_by_test_id("outcome-events-malformed").wait_for()
            tab.get_by_text("✓ adds up").wait_for()
            seen_first = balance_of(tab)
            record = mend_one(tab)
            pause_the_shop(tab)
            tab.locator("nav a[href='/pipeline']").click()
            tab.get_by_text("✓ adds up").wait_for()

            client = connect(find_home(shop))
            seen_last = agreed_balance(tab, client)
            client.close()
        said = demo.interrupt()
    assert "balances: every record has exactly one outcome" in said
    ledger = answer_of("ledger", "--json", folder=shop)
    assert ledger["balanced"]
    (given_back,) = (each for each in ledger["lanes"] if each["lane"] == "redrive")
    assert (given_back["end"], given_back["outcomes"]) == (1, {"accepted": 1})
    accepted = ledger["streams"]["events"]["outcomes"]["accepted"]
    assert accepted >= seen_last["outcomes"]["accepted"] > seen_first["outcomes"]["accepted"]
    for seen in (seen_first, seen_last):
        until = f"SELECT sum(records)::BIGINT AS records FROM epochs WHERE epoch <= {seen['epoch']}"
        assert answer_of("sql", until, "--format", "json", folder=shop) == [{"records": seen["read"]}]
        assert sum(seen["outcomes"].values()) == seen["read"]
    asked = (
        f"SELECT user_id, event_type, (SELECT count(*) FROM events_clean) AS rows FROM events_clean "
        f"WHERE event_id = '{record['event_id']}'"
    )
    counted = {"user_id": record["user_id"], "event_type": record["event_type"], "rows": accepted}
    assert answer_of("sql", asked, "--format", "json", folder=shop) == [counted]
