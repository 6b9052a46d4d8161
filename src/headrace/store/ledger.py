"""The ledger: every record that was read, in exactly one outcome, and the proof that the counts agree."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from headrace.errors import IntegrityError
from headrace.store.instants import instant_of
from headrace.store.progress import LaneProgress, Progress, TableProgress

__all__ = [
    "LaneLedger",
    "Ledger",
    "PartitionStatus",
    "StoreStatus",
    "TableLedger",
    "TableStatus",
    "check_balance",
]


@dataclass(frozen=True)
class LaneLedger:
    """One partition of one lane: `end` - `start` = the sum of `outcomes` + `gaps` + `lost`."""

    stream: str
    lane: str
    partition: int
    start: int
    end: int
    gaps: int
    lost: int
    conflicting: int
    outcomes: dict[str, int]

    @property
    def balanced(self) -> bool:
        """Whether every offset has its outcome."""
        return self.end - self.start == sum(self.outcomes.values()) + self.gaps + self.lost


@dataclass(frozen=True)
class TableLedger:
    """One table: `accepted` = `kept` + `filtered` + `failed`, all in records."""

    table: str
    accepted: int
    kept: int
    filtered: int
    failed: int
    corrections: int

    @property
    def balanced(self) -> bool:
        """Whether every accepted record is accounted for."""
        return self.accepted == self.kept + self.filtered + self.failed


@dataclass(frozen=True)
class Ledger:
    """What became of every record, as of one epoch."""

    epoch: int
    lanes: tuple[LaneLedger, ...]
    tables: tuple[TableLedger, ...]

    @property
    def balanced(self) -> bool:
        """Whether every line balances."""
        return all(line.balanced for line in self.lanes) and all(line.balanced for line in self.tables)

    def outcomes(self, stream: str) -> dict[str, int]:
        """Return the count of every outcome of a stream, over its lanes and partitions."""
        total: dict[str, int] = {}
        for line in self.lanes:
            if line.stream == stream:
                for outcome, records in line.outcomes.items():
                    total[outcome] = total.get(outcome, 0) + records
        return total

    def read(self, stream: str) -> int:
        """Return how many records of a stream were read."""
        return sum(self.outcomes(stream).values())

    def to_json(self) -> dict[str, Any]:
        """Return the ledger as plain values."""
        return {**asdict(self), "balanced": self.balanced}


@dataclass(frozen=True)
class PartitionStatus:
    """Where one partition of one lane stands."""

    stream: str
    lane: str
    partition: int
    position: int
    frontier: datetime | None


@dataclass(frozen=True)
class TableStatus:
    """One table: its class, rows, how far it is closed and what is missing from it.

    A view has no rows of its own: `rows` is None.
    """

    table: str
    kind: str
    rows: int | None
    closed_through: datetime | None
    retired_through: datetime | None
    partial_since: datetime | None
    lost_before: datetime | None
    corrections: int
    removed: int
    rebuilding: bool


@dataclass(frozen=True)
class StoreStatus:
    """A store as of its last epoch. `state_bytes` is the size of its file."""

    store_id: str
    epoch: int
    partitions: tuple[PartitionStatus, ...]
    tables: tuple[TableStatus, ...]
    state_bytes: int

    def positions(self, stream: str, lane: str = "main") -> dict[int, int]:
        """Return the next offset to read of every partition of a lane."""
        return {p.partition: p.position for p in self.partitions if (p.stream, p.lane) == (stream, lane)}

    def to_json(self) -> dict[str, Any]:
        """Return the status as plain values; times are ISO 8601 texts."""
        plain: dict[str, Any] = _plain(asdict(self))
        return plain


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _plain(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    return value.isoformat() if isinstance(value, datetime) else value


def ledger_of(progress: Progress) -> Ledger:
    """Return the ledger that `progress` holds."""
    lanes = tuple(_lane(*place) for place in sorted(progress.places(), key=lambda place: place[:3]))
    tables = tuple(_table(name, table) for name, table in progress.tables.items())
    return Ledger(progress.epoch, lanes, tables)


def _lane(stream: str, lane: str, partition: int, place: LaneProgress) -> LaneLedger:
    return LaneLedger(
        stream,
        lane,
        partition,
        place.start,
        place.next,
        place.gaps,
        place.lost,
        place.conflicting,
        dict(place.counts),
    )


def _table(name: str, table: TableProgress) -> TableLedger:
    return TableLedger(name, table.accepted, table.kept, table.filtered, table.failed, table.corrections)


def partitions_of(progress: Progress) -> tuple[PartitionStatus, ...]:
    """Return where every partition stands."""
    return tuple(
        PartitionStatus(stream, lane, partition, place.next, instant_of(place.frontier))
        for stream, lane, partition, place in sorted(progress.places(), key=lambda place: place[:3])
    )


def check_balance(progress: Progress) -> None:
    """Raise IntegrityError unless every line of the ledger balances.

    Called inside the transaction of an epoch.
    """
    ledger = ledger_of(progress)
    for line in ledger.lanes:
        if not line.balanced:
            raise IntegrityError(
                f"the ledger does not balance: stream '{line.stream}', lane {line.lane}, "
                f"partition {line.partition}: "
                f"offsets {line.start} to {line.end}, but outcomes {line.outcomes}, gaps "
                f"{line.gaps}, lost {line.lost}",
                fix="nothing was written; keep the project's .headrace folder and report this",
            )
    for entry in ledger.tables:
        if not entry.balanced:
            raise IntegrityError(
                f"the ledger does not balance: table '{entry.table}': {entry.accepted} "
                f"accepted, but {entry.kept} kept "
                f"+ {entry.filtered} filtered + {entry.failed} failed",
                fix="nothing was written; keep the project's .headrace folder and report this",
            )
