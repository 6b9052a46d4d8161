"""What is kept of a run's events for pages that come back: enough, and little."""

from __future__ import annotations

import json
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
