"""Every golden case: calm, in random cuts, and with a crash after every step; the answers never change."""

from typing import Any

import canonical
import pytest
from golden_case import NAMES, load_case
from golden_run import run_case

from headrace.testing import CrashPolicy, every_step

pytestmark = pytest.mark.untraced

_CUTS_PLAIN = 1
_CRASHES = 1.2
"""Of a plain run, for each step that an epoch has; each opens the store again."""
_CUTS_SOAK = tuple(range(4, 24))


def _check(name: str, *, cuts: int | None = None, crashes: CrashPolicy | None = None) -> list[Any]:
    case = load_case(name)
    given, crashed = run_case(case, cuts=cuts, crashes=crashes)
    different = canonical.differences(case.expected, given)
    assert not different, "\n".join(different[:20])
    return crashed


@pytest.mark.parametrize("name", NAMES)
def test_a_calm_run_gives_what_is_expected(name: str) -> None:
    _check(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_no_way_of_cutting_the_run_into_epochs_changes_anything(name: str) -> None:
    _check(name, cuts=_CUTS_PLAIN)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_sample_of_crashes_in_another_way_of_cutting_changes_nothing(name: str) -> None:
    # A long stream has epochs enough for as many crashes as a short one.
    share = min(0.15, _CRASHES / len(load_case(name).arrivals))
    _check(name, cuts=3, crashes=every_step(share=share, seed=NAMES.index(name)))


@pytest.mark.soak
@pytest.mark.parametrize("name", NAMES)
def test_twenty_ways_of_cutting_change_nothing(name: str) -> None:
    for cuts in _CUTS_SOAK:
        _check(name, cuts=cuts)


@pytest.mark.soak
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", NAMES)
def test_a_crash_after_every_step_of_every_epoch_changes_nothing(name: str) -> None:
    assert _check(name, crashes=every_step())
    assert _check(name, cuts=1, crashes=every_step())
