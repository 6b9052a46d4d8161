"""How far up a chart of the page goes: peaks of a load are cut off, and what goes on is shown as it is."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from page_support import browser_context

from servers.absent import absent

pytestmark = pytest.mark.untraced

UI = Path(__file__).parents[2] / "ui"
Cut = Callable[..., "dict[str, float] | None"]
USUAL = [10.0] * 30


@pytest.fixture(scope="module")
def scale() -> Iterator[Callable[..., Any]]:
    """The page's own rule, compiled as the page is and run by the browser."""
    compilers = list(UI.glob("node_modules/@esbuild/*/bin/esbuild"))
    if not compilers:
        absent("no compiler of the page: make page")
    words = ["--bundle", "--format=iife", "--global-name=scale", str(UI / "src" / "parts" / "scale.ts")]
    made = subprocess.run([str(compilers[0]), *words], capture_output=True, text=True, check=True).stdout
    with browser_context("about:blank") as context:
        tab = context.new_page()
        tab.add_script_tag(content=made)

        def asked(function: str, *arguments: Any) -> Any:
            return tab.evaluate("([name, given]) => scale[name](...given)", [function, list(arguments)])

        yield asked


@pytest.fixture
def cut(scale: Callable[..., Any]) -> Cut:
    def of(
        *layers: list[float | None], between: tuple[int, int] | None = None, **more: int
    ) -> dict[str, float] | None:
        times = list(range(len(layers[0])))
        whole = between or (0, len(times))
        found: dict[str, float] | None = scale("cutOf", times, list(layers), whole, *more.values())
        return found

    return of


def test_a_peak_that_is_over_is_cut_off_above_what_is_usual(cut: Cut) -> None:
    assert cut([*USUAL, 1_000, *USUAL]) == {"top": 10, "peak": 1_000}
    assert cut([*USUAL, 1_000, 35, *USUAL]) == {"top": 35, "peak": 1_000}, (
        "what is near to the usual is shown"
    )
    assert cut([*USUAL, 99, *USUAL]) is None, "less than tenfold stands beside the usual"


def test_a_peak_at_the_end_is_cut_off_until_it_has_gone_on_for_three_times(cut: Cut) -> None:
    assert cut([*USUAL, 1_000]) == {"top": 10, "peak": 1_000}
    assert cut([*USUAL, 1_000, 1_000]) == {"top": 10, "peak": 1_000}
    assert cut([*USUAL, 1_000, 1_000, 1_000]) is None


def test_what_goes_on_up_to_now_is_shown_as_high_as_it_is(cut: Cut) -> None:
    assert cut([0.2] * 100 + [600.0] * 20) is None, "an incident in its last sixth"
    assert cut([0.2] * 100 + [600.0] * 20 + [0.2] * 3) == {"top": 0.2, "peak": 600}, "it is over"
    assert cut([*USUAL, 1_000, 45, 41]) is None, "it goes down, and is far from the usual still"
    assert cut([*USUAL, 1_000, 45, 40]) == {"top": 40, "peak": 1_000}


def test_times_at_which_nothing_was_say_nothing_of_what_is_usual(cut: Cut) -> None:
    assert cut([0.0] * 100 + USUAL + [1_000, 10]) == {"top": 10, "peak": 1_000}
    assert cut([0.0] * 100 + [5.0, 900.0]) is None, "two values are too few to know"
    assert cut([*USUAL, 1_000, 1_000, 0, 1_000, 0]) is None, "a pause does not end what goes on"


def test_only_what_is_shown_of_the_time_says_what_is_usual(cut: Cut) -> None:
    values = [*USUAL, 1_000, *USUAL]
    assert cut(values, between=(40, 60)) is None
    assert cut(values, between=(20, 60)) == {"top": 10, "peak": 1_000}


def test_the_greatest_layer_of_a_time_counts_and_a_gap_is_none(cut: Cut) -> None:
    assert cut([None] * 61, [*USUAL, 1_000, *USUAL]) == {"top": 10, "peak": 1_000}
    assert cut([None] * 5, [None] * 5) is None


def test_of_peaks_beside_each_other_the_greatest_is_marked(scale: Callable[..., Any]) -> None:
    values = [10, 500, 900, 700, 10, 10, 600, 10]
    assert scale("peaksOf", list(range(len(values))), [values], 10) == [2, 6]
    assert scale("peaksOf", list(range(len(values))), [values], 10, [4, 7]) == [6]


def test_what_is_not_over_yet_does_not_end_what_goes_on(cut: Cut) -> None:
    values = [0.2] * 100 + [600.0] * 20 + [0.3]
    assert cut(values, open=120) is None
    assert cut([*values, 0.2, 0.2], open=122) == {"top": 0.3, "peak": 600}, "it is over"
    assert cut([*USUAL, 1_000], open=30) == {"top": 10, "peak": 1_000}, "a load of now is cut off at once"


def test_minutes_and_windows_that_are_still_filled_are_told_apart(scale: Callable[..., Any]) -> None:
    minutes = [6_000, 6_060, 6_120]
    assert scale("openFrom", minutes, 6_121) == 2
    assert scale("openFrom", minutes, 6_179.9) == 2
    assert scale("openFrom", minutes, 6_180) == 3, "all are over"
    assert scale("openFrom", minutes, 6_100) == 1, "what waits to be read can belong to the last two"
    assert scale("openFrom", [6_000, 6_300, 6_600], 6_700) == 2, "a window of five minutes"
    assert scale("openFrom", [6_000, 6_300, 6_360], 6_361) == 2, "where minutes are missing, too"
    assert scale("openFrom", [6_000], 6_059) == 0
    assert scale("openFrom", [6_000], 6_060) == 1
    assert scale("openFrom", [], 6_060) == 0


def test_what_was_measured_at_an_instant_is_over(scale: Callable[..., Any]) -> None:
    assert scale("openFrom", [6_003.2, 6_013.2, 6_023.2], 6_024) == 3
    assert scale("openFrom", [6_003, 6_013, 6_023], 6_024) == 3
