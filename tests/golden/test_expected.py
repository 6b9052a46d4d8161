"""The committed answers are the oracle's, and the cases leave no class and no outcome out."""

import canonical
import pytest
from golden_case import NAMES, load_case
from oracle_model import Plain, Table, View

pytestmark = pytest.mark.untraced


@pytest.mark.parametrize("name", NAMES)
def test_what_is_expected_is_what_the_oracle_answers(name: str) -> None:
    case = load_case(name)
    assert canonical.differences(case.expected, case.oracle_answer()) == []


def class_of(table: Table) -> str:
    if isinstance(table, View):
        return "view"
    if isinstance(table, Plain):
        return "rows, latest by key" if table.key else "rows"
    if table.window is None:
        return "keyed" if table.keys else "keyed, one row"
    if table.window.session:
        return "session"
    return "sliding" if table.window.slide else "tumbling"


def test_there_are_cases_for_every_class_and_outcome() -> None:
    assert len(NAMES) >= 30
    outcomes, classes = set[str](), set[str]()
    for case in map(load_case, NAMES):
        outcomes.update(*(stream["outcomes"] for stream in case.expected["streams"].values()))
        classes.update(map(class_of, case.module("oracle").TABLES.values()))
    assert classes == {
        "rows",
        "rows, latest by key",
        "tumbling",
        "sliding",
        "session",
        "keyed",
        "keyed, one row",
        "view",
    }
    assert outcomes == {"malformed", "rejected", "future", "late", "duplicate", "accepted"}
