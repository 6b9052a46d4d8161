"""Dead letters on their way back, a part at a time: of however many there are, few are in memory at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from headrace.operate.redrive import Address, Change, Redriven, append_redriven, find_letters, prepare

if TYPE_CHECKING:
    import pyarrow as pa

    from headrace.log import Log

__all__ = [
    "BYTES_AT_ONCE",
    "LETTERS_AT_ONCE",
    "PLACE",
    "PLACES_AT_ONCE",
    "GoingBack",
    "HoldsLetters",
    "cut_parts",
]

LETTERS_AT_ONCE = 2_000
BYTES_AT_ONCE = 16_000_000
PLACES_AT_ONCE = 500_000
PLACE = ("stream", "lane", "partition", "offset")


class HoldsLetters(Protocol):
    """The store, or a client of it."""

    def dead_letters(
        self,
        *,
        stream: str | None = None,
        outcome: str | None = None,
        rule: str | None = None,
        first_rule: str | None = None,
        limit: int = 100,
        after: tuple[str, str, int, int] | None = None,
        addresses: Sequence[tuple[str, str, int, int]] | None = None,
        waiting: bool = False,
        columns: Sequence[str] = (),
    ) -> pa.Table:
        """Return records that were set aside; see the store's."""


class GoingBack:
    """Dead letters that go back, changed as it is said: those with `addresses`, or else those of a group.

    Of a group, the latest letter of each record, and none of a record that was accepted since: who gives back
    every night what is left must not give back every try of before as well. It is what it was when this was
    made: a record that is given back and fails again is a new letter of it, and must not be given back by the
    same request again and again.
    """

    def __init__(
        self,
        letters: HoldsLetters,
        change: Change | None = None,
        *,
        addresses: Sequence[Address] = (),
        **group: str | None,
    ) -> None:
        self.letters = letters
        """Who is asked for them; another one of the same store may take over."""
        self._change = change
        self._addresses = addresses
        self._places = None if addresses else _places_of(letters, group)

    def look(self, samples: int) -> tuple[int, list[Redriven]]:
        """Return how many there are, and the first of them, read from their letters.

        Each is changed once, to see that it can be: raises RefusedError for one that cannot.
        """
        records, first = 0, list[Redriven]()
        for part in self._parts():
            records += len(part)
            first += part[: max(0, samples - len(first))]
            if self._change is None and self._places is not None:
                return self._places.num_rows, first
        return records, first

    def give_back(self, open_log: Callable[[str], Log]) -> int:
        """Append all to their redrive lanes, or none where one cannot be changed; return how many."""
        if self._change is not None:
            self.look(0)
        return sum(append_redriven(part, open_log) for part in self._parts())

    def _parts(self) -> Iterator[list[Redriven]]:
        if self._places is None:
            yield prepare(find_letters(self.letters, self._addresses), self._change)
            return
        for start, count in cut_parts(self._places.column("bytes").to_pylist()):
            places = self._places.slice(start, count).to_pylist()
            wanted: Any = [tuple(each[name] for name in PLACE) for each in places]
            found = self.letters.dead_letters(addresses=wanted, limit=len(wanted))
            yield prepare(found.to_pylist(), self._change)


def _places_of(letters: HoldsLetters, group: dict[str, str | None]) -> pa.Table:
    """Return where the letters of a group lie, and how large each is."""
    import pyarrow as pa

    pages: list[pa.Table] = []
    after: Any = None
    while not pages or pages[-1].num_rows == PLACES_AT_ONCE:
        found = letters.dead_letters(
            stream=group.get("stream"),
            outcome=group.get("outcome"),
            rule=group.get("rule"),
            first_rule=group.get("first_rule"),
            waiting=True,
            columns=(*PLACE, "bytes"),
            limit=PLACES_AT_ONCE,
            after=after,
        )
        pages.append(found)
        if found.num_rows:
            (last,) = found.slice(found.num_rows - 1).to_pylist()
            after = tuple(last[name] for name in PLACE)
    return pa.concat_tables(pages)


def cut_parts(sizes: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Cut letters of these sizes into parts: where each begins, and of how many it is."""
    start, held = 0, 0
    for at, size in enumerate(sizes):
        if at > start and (at - start >= LETTERS_AT_ONCE or held + size > BYTES_AT_ONCE):
            yield start, at - start
            start, held = at, 0
        held += size
    if len(sizes) > start:
        yield start, len(sizes) - start
