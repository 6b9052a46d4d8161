"""What is kept of a run's events for pages that come back: enough, and little."""

from __future__ import annotations

import asyncio
import json
import threading
from typing import Any

import pytest

from headrace.web.page.live import Live


def quiet_live() -> Live:
    """Events of a run that ended: there are those that a test adds, and no others."""

    def broken() -> dict[str, Any]:
        raise RuntimeError("the store is closing")

    live = Live(broken, lambda: [])
    live.close()
    return live


@pytest.mark.parametrize(("times", "characters"), [(2_100, 10), (600, 10_000)])
def test_what_nobody_takes_is_forgotten_and_takes_little_memory(times: int, characters: int) -> None:
    live = quiet_live()
    for _ in range(times):
        live._add("journal", {"lines": ["x" * characters]})
    assert live._after(0) is None
    assert live._position(f"{live.run}-1") is None
    assert sum(len(event.body) for event in live._events) <= 4_000_000
    assert live._after(times - 1) == [live._events[-1]]
    assert live._position(f"{live.run}-{times - 1}") == times - 1


def test_of_states_the_last_is_kept_and_who_comes_back_misses_neither_epoch_nor_line() -> None:
    live = quiet_live()
    live._add("journal", {"lines": ["a"]})
    live._add("epochs", {"epochs": [1]})
    for number in range(5_000):
        live._add("status", {"number": number})
        live.waiting(None)
    live._add("journal", {"lines": ["b"]})
    found = live._after(0)
    assert found is not None
    assert [event.kind for event in found] == ["journal", "epochs", "status", "waiting", "journal"]
    assert json.loads(found[2].body) == {"number": 4_999}
    seen = live._position(f"{live.run}-1")
    assert seen == 1
    assert [event.kind for event in live._after(seen) or ()] == [event.kind for event in found[1:]]


def test_the_events_of_a_run_end_though_its_status_waits_for_a_log_that_is_away() -> None:
    asked, go_on = threading.Event(), threading.Event()

    def status() -> dict[str, Any]:
        asked.set()
        go_on.wait(30)
        return {}

    live = Live(status, lambda: [])

    async def read() -> None:
        async for _ in live.stream(""):
            pass

    reading = threading.Thread(target=lambda: asyncio.run(read()))
    closing = threading.Thread(target=live.close)
    reading.start()
    assert asked.wait(30)
    closing.start()
    closing.join(10)
    closed = not closing.is_alive()
    go_on.set()
    closing.join()
    reading.join()
    assert closed


def test_a_page_that_is_opened_after_nobody_looked_is_not_shown_how_it_stood_then() -> None:
    live = quiet_live()

    async def first() -> None:
        events = live.stream("")
        await anext(events)
        live._add("status", {"number": 1})
        await events.aclose()

    asyncio.run(first())
    assert live._states == {}
