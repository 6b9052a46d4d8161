"""What a target with columns remembers of a cursor."""

from __future__ import annotations

from dataclasses import replace

from headrace.replicate.protocol import Cursor, Position

CURSOR = Cursor(
    store_id="s",
    replica="r",
    generation=2,
    position=Position(3, 5, 7),
    begun=1,
    sweep_below=9,
    rounds=4,
    kept_below=6,
)


def test_a_cursor_comes_back_from_a_row_as_it_was() -> None:
    assert Cursor.of_row(CURSOR.row) == CURSOR
    assert len(set(CURSOR.row)) == len(CURSOR.row), "no two fields could be taken for each other"


def test_what_a_row_of_before_does_not_say_is_nothing() -> None:
    *known, _, _ = CURSOR.row
    assert Cursor.of_row([*known, None, None]) == replace(CURSOR, rounds=0, kept_below=0)
