"""Words for people: numbers of things, and lists that say where they are cut."""

from __future__ import annotations

import pytest

from headrace.declare.words import counted, listed


@pytest.mark.parametrize(
    ("count", "what", "said"),
    [
        (0, "records", "0 records"),
        (1, "records", "1 record"),
        (12_345, "records", "12,345 records"),
        (1, "micro-batches", "1 micro-batch"),
        (2, "micro-batches", "2 micro-batches"),
    ],
)
def test_one_thing_is_not_told_as_several(count: int, what: str, said: str) -> None:
    assert counted(count, what) == said


def test_a_list_says_that_it_is_cut_and_that_it_is_empty() -> None:
    twelve = [f"t{number}" for number in range(12)]
    assert listed(twelve) == ", ".join(twelve)
    assert listed([*twelve, "t12"]) == ", ".join(twelve) + ", …"
    assert listed([]) == "none"
