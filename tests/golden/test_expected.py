"""The committed answers are the oracle's, and the cases leave no class and no outcome out."""

import canonical
import pytest
from golden_case import NAMES, load_case

pytestmark = pytest.mark.untraced


@pytest.mark.parametrize("name", NAMES)
def test_what_is_expected_is_what_the_oracle_answers(name: str) -> None:
    case = load_case(name)
    assert canonical.differences(case.expected, case.oracle_answer()) == []


def test_there_are_cases_for_every_class_and_outcome() -> None:
    found = {"outcomes": set(), "cases": len(NAMES)}
    for name in NAMES:
        for stream in load_case(name).expected["streams"].values():
            found["outcomes"] |= set(stream["outcomes"])
    assert found["cases"] >= 30
    assert found["outcomes"] == {"malformed", "rejected", "future", "late", "duplicate", "accepted"}
