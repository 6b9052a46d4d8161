"""The log of one stream: two verbs, `append` and `read`, whichever log it is.

Nothing in `rows/`, `store/` or `engine/` may know more about a log than this page says. A stream's redrive
lane is a log of its own (`Log.lane`), so that it has its own offsets.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Protocol, runtime_checkable

import pyarrow as pa

from headrace.errors import RefusedError

__all__ = [
    "APPEND_SCHEMA",
    "ORDERED_ROWS",
    "RECORD_SCHEMA",
    "Appended",
    "KnowsBytes",
    "Log",
    "LogFullError",
    "PartitionRange",
    "RecordTooLargeError",
    "Settles",
    "Slice",
    "Warns",
    "settles_after",
]

_HEADERS = pa.list_(pa.struct([("key", pa.string()), ("value", pa.binary())]))

RECORD_SCHEMA = pa.schema(
    [
        pa.field("partition", pa.int32(), nullable=False),
        pa.field("offset", pa.int64(), nullable=False),
        pa.field("record_time", pa.timestamp("us", "UTC"), nullable=False),
        pa.field("key", pa.binary()),
        pa.field("value", pa.binary()),
        pa.field("headers", _HEADERS),
    ]
)
"""What `read` gives. A NULL value is a tombstone; NULL headers mean none."""

APPEND_SCHEMA = pa.schema(
    [
        pa.field("partition", pa.int32()),
        pa.field("record_time", pa.timestamp("us", "UTC")),
        pa.field("key", pa.binary()),
        pa.field("value", pa.binary()),
        pa.field("headers", _HEADERS),
    ]
)
"""What `append` takes. A NULL partition: by the key's hash, or round robin without one. A NULL record time:
the log's clock. Columns that are missing altogether are NULL."""


class LogFullError(RefusedError):
    """The log holds as much as it may. It takes records again when readers or retention made room."""


class RecordTooLargeError(RefusedError):
    """A record is larger than the log takes: it would be refused each time."""


ORDERED_ROWS = 5_000
"""A slice of so many records or fewer is in order. Nothing that is computed depends on the order; who shows
records reads few of them at a time."""


@dataclass(frozen=True)
class PartitionRange:
    """The offsets that a partition holds: `start` is the first kept, `end` the next to be written."""

    partition: int
    start: int
    end: int

    def unread(self, position: int | None) -> int:
        """Return how many records come at `position` and behind it; None: none of what it holds was read.

        Those that retention took before they were read are among them: whoever lost them is behind by them.
        """
        return max(0, self.end - (self.start if position is None else position))


@dataclass(frozen=True)
class Appended:
    """Offsets given to appended records, per partition: first and next. They are durable."""

    offsets: Mapping[int, tuple[int, int]]


@dataclass(frozen=True)
class Slice:
    """What one `read` gave.

    records    up to ORDERED_ROWS in (record time, partition, offset) order as far as one read knows; more may
               come partition by partition, those of a partition in the order of their offsets
    next       per partition the offset to read next (the position that an engine commits)
    idle_since per partition that was proved to be read to its very end: the log's clock *before* that was
               asked, so that nothing appended earlier can be missing. A partition with a load in progress
               (`Log.load`) is left out.
    gaps       per partition: offsets passed over that never held a record (compacted or transactional topics)
    ends       per partition the next offset to be written, as far as the read saw; how much is unread follows
    unsettled  partitions in which what follows belongs to a transaction that has not ended
    """

    records: pa.Table
    next: Mapping[int, int]
    idle_since: Mapping[int, datetime] = field(default_factory=dict)
    gaps: Mapping[int, int] = field(default_factory=dict)
    ends: Mapping[int, int] = field(default_factory=dict)
    unsettled: frozenset[int] = frozenset()


class Log(Protocol):
    """An opened log of one stream. Calls may come from several threads, one at a time per method."""

    @property
    def stream(self) -> str:
        """The stream's name."""

    @property
    def identity(self) -> str:
        """What tells this log from every other one, also from one that was deleted and made again."""

    def now(self) -> datetime:
        """The log's clock, UTC."""

    def partitions(self) -> tuple[PartitionRange, ...]:
        """The partitions and what they hold, in the order of their numbers; asked of the log itself."""

    def append(self, records: pa.Table) -> Appended:
        """Append `records` (APPEND_SCHEMA) in their order; they are durable when this returns.

        Raises LogFullError when the log is full, RecordTooLargeError when a record is: nothing is written
        then. Raises TransientError when trying again may help. The embedded log has written nothing then, a
        topic perhaps the first records of each partition, which are found as copies where the stream has
        `unique`.
        """

    def read(self, positions: Mapping[int, int], *, rows_max: int, bytes_max: int, wait: timedelta) -> Slice:
        """Read from `positions` (a partition that is absent is read from its start).

        Returns as soon as there is a record, with what is there up to the bounds (always at least one record
        if there is one), or empty after `wait`. Raises IntegrityError for a position beyond the end, and
        RefusedError for one before the start (records were lost to retention).
        """

    def publish(self, reader: str, positions: Mapping[int, int]) -> None:
        """Make a reader's committed positions known: others see its lag, and retention does not pass them."""

    def readers(self, name: str | None = None) -> Mapping[str, Mapping[int, int]]:
        """The positions that readers published; with `name`, those of that one, which may cost far less."""

    def load(self) -> AbstractContextManager[None]:
        """While open, the stream is being loaded with records whose record times are given.

        The end of a partition then says nothing about time. Ends with the process if that dies.
        """

    def lane(self, name: str, *, latest: bool = False) -> Log:
        """A side log of the stream, made when first asked for; `"redrive"` is the one that engines read.

        It keeps its records as long as the stream does. With `latest` only the last record of a key counts,
        and that one is kept for ever: where a poller stands.
        """

    def close(self) -> None:
        """Give back files and connections."""


@runtime_checkable
class KnowsBytes(Protocol):
    """A log that can say how much it takes; not every log can."""

    def stored_bytes(self) -> Mapping[int, int]:
        """How many bytes the records of each partition take, as stored."""


@runtime_checkable
class Settles(Protocol):
    """A log in which records of an append that failed may appear later."""

    @property
    def settles_after(self) -> timedelta:
        """How long after such an append its records may be written and not be seen yet."""


def settles_after(log: Log) -> timedelta:
    """Return how long after an append that failed to wait before looking whether its records are there."""
    return log.settles_after if isinstance(log, Settles) else timedelta()


@runtime_checkable
class Warns(Protocol):
    """A log that may work otherwise than who runs a pipeline expects, and says so when it is opened."""

    @property
    def warnings(self) -> tuple[str, ...]:
        """What to tell them, each a sentence or two."""
