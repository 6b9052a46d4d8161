"""Letters on their way back: those of a group as they were when it was asked for, so many at once as fit."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING

from headrace.errors import RefusedError
from headrace.operate import open_log
from headrace.operate.redrive import (
    Address,
    Change,
    Redriven,
    append_redriven,
    find_letters,
    prepare,
    replace_exactly,
    set_fields,
)

if TYPE_CHECKING:
    from headrace.operate import Runtime
    from headrace.web.page.models_records import Redrive

__all__ = ["BYTES_AT_ONCE", "LETTERS_AT_ONCE", "Chosen"]

LETTERS_AT_ONCE = 2_000
BYTES_AT_ONCE = 16_000_000
_LETTERS_MAX = 1_000_000
_PLACE = ("stream", "lane", "partition", "offset")


class Chosen:
    """The letters that a request chose, changed as it says. Raises RefusedError for one that cannot be done.

    A group is what it was when this was made: a record that is given back and fails again is a new letter of
    it, and must not be given back by the same request again and again.
    """

    def __init__(self, runtime: Runtime, asked: Redrive) -> None:
        self._runtime = runtime
        self._change = _change_of(asked)
        self._addresses = [Address.parse(each) for each in asked.addresses]
        self._places = None
        if not asked.addresses:
            self._places = runtime.store.dead_letters(
                stream=asked.stream,
                outcome=asked.outcome,
                first_rule=asked.rule,
                waiting=True,
                columns=(*_PLACE, "bytes"),
                limit=_LETTERS_MAX,
            )

    def look(self, samples: int) -> tuple[int, list[Redriven]]:
        """Return how many there are, and the first of them; each is changed once, to see that it can be."""
        records, first = 0, list[Redriven]()
        for chunk in self._chunks():
            records += len(chunk)
            first += chunk[: max(0, samples - len(first))]
        return records, first

    def give_back(self) -> int:
        """Append all to their redrive lanes, or none where one cannot be changed; return how many."""
        if self._change is not None:
            self.look(0)
        project = self._runtime.project
        return sum(append_redriven(chunk, partial(open_log, project)) for chunk in self._chunks())

    def _chunks(self) -> Iterator[list[Redriven]]:
        if self._places is None:
            # The answers of the run serve as the client that a command would open.
            yield prepare(find_letters(self._runtime.answers, self._addresses), self._change)
            return
        for start, count in self._cuts(self._places.column("bytes").to_pylist()):
            places = self._places.slice(start, count).to_pylist()
            wanted = [tuple(each[name] for name in _PLACE) for each in places]
            found = self._runtime.store.dead_letters(addresses=wanted, limit=len(wanted))
            yield prepare(found.to_pylist(), self._change)

    def _cuts(self, sizes: Sequence[int]) -> Iterator[tuple[int, int]]:
        """Cut letters of these sizes into parts: where each begins, and of how many it is."""
        start, held = 0, 0
        for at, size in enumerate(sizes):
            if at > start and (at - start >= LETTERS_AT_ONCE or held + size > BYTES_AT_ONCE):
                yield start, at - start
                start, held = at, 0
            held += size
        if len(sizes) > start:
            yield start, len(sizes) - start


def _change_of(asked: Redrive) -> Change | None:
    if not asked.addresses and asked.stream is None and asked.outcome is None and asked.rule is None:
        raise RefusedError("nothing was chosen", fix="name addresses, or a stream, an outcome or a rule")
    if asked.value is not None and asked.assignments:
        raise RefusedError("a new record and fields at once", fix="give one of them")
    if asked.value is not None and len(asked.addresses) != 1:
        raise RefusedError("a new record stands for one address", fix="choose one record")
    if asked.value is not None:
        return replace_exactly(asked.value.encode("utf-8", "surrogatepass"))
    return set_fields(asked.assignments) if asked.assignments else None
