"""How far a store has come: positions, frontiers and counts, one value in each transaction.

It is one document on purpose. Positions, frontiers and the ledger are a few hundred numbers; a statement for
each kind would cost a small epoch more than its data does.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from headrace.rows.result import Outcome

__all__ = ["LabelProgress", "LaneProgress", "Progress", "RebuildProgress", "TableProgress"]

Micros = int
"""Microseconds since 1970-01-01 UTC."""


@dataclass(slots=True)
class LaneProgress:
    """One partition of one lane of a stream.

    start     the offset at which reading began, next: the offset to read next
    gaps      offsets passed over that never held a record; lost: offsets that retention took before they
    were read
    frontier  how far record time has come, None before the first record
    held      whether records behind the frontier were read, and the end was not proved since
    behind    where the frontier stood when the last such record was read
    first     the record time of the first record that was read, latest: the greatest that was read
    """

    start: int
    next: int
    gaps: int = 0
    lost: int = 0
    conflicting: int = 0
    frontier: Micros | None = None
    first: Micros | None = None
    latest: Micros | None = None
    held: bool = False
    behind: Micros | None = None
    counts: dict[str, int] = field(default_factory=dict)

    def count(self, outcome: Outcome, records: int) -> None:
        """Add `records` to the count of `outcome`."""
        if records:
            self.counts[outcome.value] = self.counts.get(outcome.value, 0) + records

    @property
    def records(self) -> int:
        """Records that have an outcome."""
        return sum(self.counts.values())


@dataclass(slots=True)
class RebuildProgress:
    """A table that is being computed again from the log: where each partition of each lane stands.

    goal   where it ends
    kept   whether the windows below the table's floor are those of before; `floor` is then what the table's
           floor was, and is again at the end
    refused  records so far that were accepted when they were read first, and that today's rules refuse
    """

    next: dict[str, dict[int, int]]
    goal: dict[str, dict[int, int]]
    kept: bool = False
    floor: Micros | None = None
    refused: int = 0


@dataclass(slots=True)
class TableProgress:
    """One table.

    accepted        records accepted since this state began; each is kept, filtered or failed
    corrections     accepted records for windows that were closed already
    removed         rows that left the table
    closed_through  ends of windows up to here are closed, retired_through: and taken out of the store
    floor           windows that began before are not written, because their records may be lost
    partial_since   set when totals or sessions lack what came before it
    lost_before     set when records were lost before they were read: they came before this record time
    expired         by replica that takes out of its target what is retired here: the epoch behind which the
                    keys of such rows are written down
    """

    fingerprint: str
    accepted: int = 0
    kept: int = 0
    filtered: int = 0
    failed: int = 0
    corrections: int = 0
    removed: int = 0
    closed_through: Micros | None = None
    retired_through: Micros | None = None
    floor: Micros | None = None
    partial_since: Micros | None = None
    lost_before: Micros | None = None
    rebuild: RebuildProgress | None = None
    expired: dict[str, int] = field(default_factory=dict)


@dataclass(slots=True)
class LabelProgress:
    """Records of a stream by the text in its label column, and by outcome; begun anew for another column."""

    column: str
    counts: dict[str, dict[str, int]] = field(default_factory=dict)


@dataclass(slots=True)
class Progress:
    """Everything that an epoch moves on, besides the rows themselves."""

    epoch: int = 0
    lanes: dict[str, dict[str, dict[int, LaneProgress]]] = field(default_factory=dict)
    tables: dict[str, TableProgress] = field(default_factory=dict)
    labels: dict[str, LabelProgress] = field(default_factory=dict)
    """Of the streams that name a label column."""

    def lane(self, stream: str, lane: str) -> dict[int, LaneProgress]:
        """Return the partitions of a lane, which may be none yet."""
        return self.lanes.setdefault(stream, {}).setdefault(lane, {})

    def positions(self, stream: str, lane: str = "main") -> dict[int, int]:
        """Return the next offset of every partition of a lane."""
        return {number: place.next for number, place in self.lanes.get(stream, {}).get(lane, {}).items()}

    def places(self) -> Iterator[tuple[str, str, int, LaneProgress]]:
        """Go through every stream, lane and partition."""
        for stream, lanes in self.lanes.items():
            for lane, places in lanes.items():
                for partition, place in places.items():
                    yield stream, lane, partition, place

    def accepted(self, stream: str) -> int:
        """Return how many records of a stream were accepted, over all lanes and partitions."""
        return sum(
            place.counts.get(Outcome.ACCEPTED.value, 0)
            for lane in self.lanes.get(stream, {}).values()
            for place in lane.values()
        )

    def copy(self) -> Progress:
        """Return a copy that an epoch may change; the committed one stays as it is until the commit."""
        return Progress(
            epoch=self.epoch,
            lanes={
                stream: {
                    lane: {n: replace(place, counts=dict(place.counts)) for n, place in places.items()}
                    for lane, places in lanes.items()
                }
                for stream, lanes in self.lanes.items()
            },
            tables={name: replace(table) for name, table in self.tables.items()},
            labels={
                stream: LabelProgress(held.column, {text: dict(each) for text, each in held.counts.items()})
                for stream, held in self.labels.items()
            },
        )

    def to_json(self) -> str:
        """Return the document that the store keeps."""
        return json.dumps(asdict(self), separators=(",", ":"))

    @staticmethod
    def from_json(text: str) -> Progress:
        """Read what `to_json` wrote."""
        raw = json.loads(text)
        lanes = {
            stream: {
                lane: {int(n): LaneProgress(**place) for n, place in places.items()}
                for lane, places in by_lane.items()
            }
            for stream, by_lane in raw["lanes"].items()
        }
        tables = {name: _table(facts) for name, facts in raw["tables"].items()}
        # A store of before labels were counted has none.
        labels = {stream: LabelProgress(**held) for stream, held in raw.get("labels", {}).items()}
        return Progress(raw["epoch"], lanes, tables, labels)


def _table(facts: dict[str, Any]) -> TableProgress:
    rebuild = facts.pop("rebuild")
    if rebuild is None:
        return TableProgress(**facts)
    next_, goal = _numbered(rebuild.pop("next")), _numbered(rebuild.pop("goal"))
    return TableProgress(**facts, rebuild=RebuildProgress(next_, goal, **rebuild))


def _numbered(lanes: Mapping[str, Mapping[str, int]]) -> dict[str, dict[int, int]]:
    return {lane: {int(n): value for n, value in places.items()} for lane, places in lanes.items()}
