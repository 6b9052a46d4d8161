"""A correction of a record that was set aside: what it would get before it is sent, and what it got."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

import pytest
from page_support import RunningPage, browser_context, eventually, running_page

if TYPE_CHECKING:
    from playwright.sync_api import Locator, Page

SOON_MS = 20_000


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningPage]:
    with running_page(tmp_path_factory.mktemp("corrections") / "commerce", events_hours=0.02) as made:
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


def event(page: RunningPage, name: str, **facts: Any) -> dict[str, Any]:
    """An event that is right but for `facts`."""
    when = page.runtime.logs["events"].now().isoformat()
    known = {"event_id": name, "event_type": "search", "user_id": "u", "device": "mobile", "timestamp": when}
    return known | facts


def set_aside(page: RunningPage, *records: dict[str, Any]) -> list[dict[str, Any]]:
    """Send records that are set aside; return their letters in the order of the records."""
    page.send(*(json.dumps(each).encode() for each in records))
    eventually(lambda: all(letters(page, each["event_id"]) for each in records))
    return [letters(page, each["event_id"])[0] for each in records]


def letters(page: RunningPage, name: str) -> list[dict[str, Any]]:
    found = page.ask("GET", "/api/dead-letters?limit=500")[1]["letters"]
    return [each for each in found if f'"{name}"' in (each["value"] or "")]


def preview(page: RunningPage, **asked: Any) -> dict[str, Any]:
    status, found, _ = page.ask("POST", "/api/dead-letters/preview", asked)
    assert status == 200, found
    return dict(found)


def rules(reasons: list[dict[str, str]]) -> list[str]:
    return [each["rule"] for each in reasons]


def test_a_preview_says_which_outcome_a_correction_gets_and_which_rules_it_breaks(page: RunningPage) -> None:
    [letter] = set_aside(page, event(page, "previewed", device="toaster", rating=9))
    lane = page.runtime.store.dead_letters(limit=500).num_rows

    def would(**facts: Any) -> tuple[str, list[str]]:
        corrected = json.dumps(event(page, "previewed", **facts))
        found = preview(page, addresses=[letter["address"]], value=corrected)
        [sample] = found["samples"]
        assert found["outcomes"] == {sample["would"]: 1}
        assert found["broken"] == dict.fromkeys(rules(sample["reasons"]), 1)
        return sample["would"], rules(sample["reasons"])

    assert would() == ("accepted", [])
    assert would(rating=9) == ("rejected", ["expect:rating_in_range"])
    assert would(rating=9, device="toaster") == (
        "rejected",
        ["expect:known_device", "expect:rating_in_range"],
    )
    assert would(user_id=7) == ("malformed", ["column:user_id"])
    assert would(timestamp="2020-01-01T00:00:00Z") == ("accepted", []), "no time is checked on the way back"
    as_it_is = preview(page, addresses=[letter["address"]])["samples"][0]
    assert (as_it_is["would"], rules(as_it_is["reasons"])) == (letter["outcome"], rules(letter["reasons"]))
    assert page.runtime.store.dead_letters(limit=500).num_rows == lane, "a preview does nothing"


def test_a_preview_of_a_group_says_how_many_of_its_records_would_be_accepted(page: RunningPage) -> None:
    several = [event(page, f"group-{number}", rating=9) for number in range(7)]
    set_aside(page, *several, event(page, "group-7", rating=9, product_price=-1))
    chosen = {"stream": "events", "outcome": "rejected", "rule": "expect:rating_in_range"}
    found = preview(page, **chosen, assignments=["rating=5", "device=phone"])
    assert found["checked"] == found["records"] >= 8
    assert found["outcomes"] == {"rejected": found["records"]}
    assert found["broken"] == {"expect:known_device": found["records"]}
    found = preview(page, **chosen, assignments=["rating=5"])
    assert found["outcomes"].get("accepted", 0) >= 7
    assert sum(found["outcomes"].values()) == found["checked"]


def failed_again(page: RunningPage, name: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Give back a correction that breaks another rule; return the first letter, and the second one."""
    [letter] = set_aside(page, event(page, name, user_id=5))
    corrected = json.dumps(event(page, name, rating=9))
    page.ask("POST", "/api/dead-letters/redrive", {"addresses": [letter["address"]], "value": corrected})
    eventually(lambda: len(letters(page, name)) == 2)
    first, second = sorted(letters(page, name), key=lambda each: "@redrive" in each["address"])
    return first, second


def test_a_letter_tells_that_its_record_was_given_back_and_set_aside_again_and_where(
    page: RunningPage,
) -> None:
    first, second = failed_again(page, "again")
    told = first["again"]
    assert (told["address"], told["outcome"]) == (second["address"], "rejected")
    assert rules(told["reasons"]) == ["expect:rating_in_range"]
    assert second["again"] is None, "nobody gave it back since"
    alone = page.ask("GET", "/api/dead-letters?address=" + quote(second["address"]))[1]["letters"]
    assert [each["address"] for each in alone] == [second["address"]]
    found = page.ask("GET", "/api/dead-letters/groups")[1]
    assert {each["rule"]: each["again"] for each in found}["column:user_id"] >= 1
    given = {"addresses": [second["address"]], "assignments": ["rating=5"]}
    page.ask("POST", "/api/dead-letters/redrive", given)
    eventually(lambda: all(each["accepted"] for each in letters(page, "again")))
    assert [each["again"] for each in letters(page, "again")] == [None, None], (
        "what was accepted is told as that"
    )


def opened(page: RunningPage, tab: Page, name: str, rule: str) -> tuple[Locator, Locator]:
    """Open the editor of a record that was set aside; return where it stands, and the editor."""
    tab.goto("/records?" + urlencode({"group": rule}))
    letter = tab.get_by_test_id("letter").filter(has_text=f'"{name}"')
    letter.get_by_role("button", name="Fix…").click()
    return letter, letter.get_by_label("The corrected record")


@pytest.mark.slow
@pytest.mark.untraced
def test_the_page_says_what_a_correction_would_get_before_it_is_sent(page: RunningPage, tab: Page) -> None:
    set_aside(page, event(page, "looked-at", user_id=5))
    letter, box = opened(page, tab, "looked-at", "events malformed column:user_id")
    box.fill(json.dumps(event(page, "looked-at", rating=9)))
    letter.get_by_role("button", name="Preview").click()
    verdict = letter.get_by_test_id("verdict")
    verdict.get_by_text("It would be set aside again").wait_for()
    assert "rejected" in verdict.inner_text()
    assert "expect:rating_in_range" in verdict.inner_text()
    letter.get_by_role("button", name="Give 1 back all the same").wait_for()
    box.fill(json.dumps(event(page, "looked-at")))
    letter.get_by_role("button", name="Preview").click()
    verdict.get_by_text("It would be accepted").wait_for()


@pytest.mark.slow
@pytest.mark.untraced
def test_a_correction_that_failed_again_is_told_where_it_was_made_and_leads_to_the_new_letter(
    page: RunningPage, tab: Page
) -> None:
    set_aside(page, event(page, "mended-badly", user_id=5))
    letter, box = opened(page, tab, "mended-badly", "events malformed column:user_id")
    box.fill(json.dumps(event(page, "mended-badly", rating=9)))
    letter.get_by_role("button", name="Preview").click()
    letter.get_by_role("button", name="Give 1 back").click()
    again = letter.get_by_test_id("again")
    again.get_by_text("set aside again").wait_for()
    assert "expect:rating_in_range" in again.inner_text()
    again.get_by_role("link").click()
    new = tab.get_by_test_id("letter")
    new.filter(has_text="events@redrive:").filter(has_text="mended-badly").wait_for()
    assert new.count() == 1
    tab.get_by_role("button", name="All of this reason").click()
    tab.get_by_role("button", name="All of this reason").wait_for(state="detached")
