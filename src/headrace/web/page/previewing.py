"""What the row stage of now says of records on their way back, before they are sent."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from headrace.errors import HeadraceError, RefusedError
from headrace.log.protocol import RECORD_SCHEMA
from headrace.operate.formats import open_framings
from headrace.operate.redrive import LANE, Redriven

if TYPE_CHECKING:
    from headrace.rows import RowResult
    from headrace.web.page.sources import PageSources

__all__ = ["CHECKED_MAX", "Checked", "check"]

CHECKED_MAX = 200
"""So many records of a request are looked at: what is wrong with a group is wrong with its first ones."""


@dataclass
class Checked:
    """Outcomes by the place of a record in what was asked, each with the rules that the record breaks.

    `unchecked` says why nothing could be looked at; `warned` are records by rules that only warn.
    """

    outcomes: dict[int, tuple[str, list[dict[str, str]]]] = field(default_factory=dict)
    warned: Counter[str] = field(default_factory=Counter)
    unchecked: str = ""

    def counted(self) -> dict[str, int]:
        """Return how many get each outcome."""
        return dict(Counter(outcome for outcome, _ in self.outcomes.values()))

    def broken(self) -> dict[str, int]:
        """Return how many break each rule."""
        return dict(Counter(each["rule"] for _, reasons in self.outcomes.values() for each in reasons))


def check(sources: PageSources, records: Sequence[Redriven]) -> Checked:
    """Run records through the row stages of their streams as the redrive lane would; nothing is kept.

    What passes is `accepted`: that it may be a copy of what was accepted is known when it is given back.
    """
    checked = Checked()
    try:
        for stream in sorted({each.address.stream for each in records}):
            places = [place for place, each in enumerate(records) if each.address.stream == stream]
            with sources.slot():
                result = _result(sources, stream, [records[place] for place in places])
            dead = {each["offset"]: each for each in result.dead.to_pylist()}
            for number, place in enumerate(places):
                found = dead.get(number)
                outcome = ("accepted", []) if found is None else (found["outcome"], found["reasons"])
                checked.outcomes[place] = outcome
            for each in result.rules.to_pylist():
                checked.warned[each["rule"]] += each["warned"]
    except HeadraceError as error:
        # What somebody has to say of a schema may be away; the correction can be sent all the same.
        return Checked(unchecked=f"{error.message} ({error.fix})" if error.fix else error.message)
    checked.warned = +checked.warned
    return checked


def _result(sources: PageSources, stream: str, records: Sequence[Redriven]) -> RowResult:
    from headrace.rows import RowStage

    plan = sources.runtime.plan.streams.get(stream)
    if plan is None:
        raise RefusedError(f"the pipeline has no stream '{stream}' any more", fix="")
    rows: list[dict[str, Any]] = [
        {
            "partition": 0,
            "offset": number,
            "record_time": each.record_time,
            "key": each.key,
            "value": each.value,
            "headers": [{"key": key, "value": value} for key, value in each.headers],
        }
        for number, each in enumerate(records)
    ]
    with ExitStack() as undo:
        framing = open_framings(sources.runtime.project, [plan.stream], undo).get(stream)
        stage = RowStage(plan, framing)
        undo.callback(stage.close)
        return stage.run(pa.Table.from_pylist(rows, schema=RECORD_SCHEMA), lane=LANE)
