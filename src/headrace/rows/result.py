"""What the row stage gives for a slice of records."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import pyarrow as pa

__all__ = ["DEAD_SCHEMA", "RULE_SCHEMA", "Outcome", "RowResult"]


class Outcome(StrEnum):
    """The one outcome of a record, in the order in which they are checked."""

    MALFORMED = "malformed"
    REJECTED = "rejected"
    FUTURE = "future"
    LATE = "late"
    DUPLICATE = "duplicate"
    ACCEPTED = "accepted"
    EXPIRED = "expired"  # redrive lane only: its window is already retired from the store


_REASONS = pa.list_(pa.struct([("rule", pa.string()), ("detail", pa.string())]))

DEAD_SCHEMA = pa.schema(
    [
        pa.field("partition", pa.int32(), nullable=False),
        pa.field("offset", pa.int64(), nullable=False),
        pa.field("record_time", pa.timestamp("us", "UTC"), nullable=False),
        pa.field("outcome", pa.string(), nullable=False),
        pa.field("reasons", _REASONS, nullable=False),
        pa.field("event_time", pa.timestamp("us", "UTC")),
        pa.field("key", pa.binary()),
        pa.field("value", pa.binary()),
        pa.field("headers", pa.list_(pa.struct([("key", pa.string()), ("value", pa.binary())]))),
    ]
)
"""A dead letter: outcome malformed, rejected or future. `rule` is `json`, `utf8`, `column:NAME`,
`event_time`, `derive:NAME`, `expect:NAME` or `future`; `detail` says what was wrong in words and never holds
the payload."""

RULE_SCHEMA = pa.schema(
    [
        pa.field("minute", pa.timestamp("us", "UTC"), nullable=False),
        pa.field("rule", pa.string(), nullable=False),
        pa.field("checked", pa.int64(), nullable=False),
        pa.field("warned", pa.int64(), nullable=False),
        pa.field("rejected", pa.int64(), nullable=False),
    ]
)
"""Checks of rules by minute of record time."""


@dataclass(frozen=True)
class RowResult:
    """Rows and dead letters of one slice; every record of it is in exactly one of `timely`, `late`, `dead`.

    timely  records that are accepted unless they are duplicates. Columns: the stream plan's `columns` by name
            and type, then `_partition` int32, `_offset` int64, `_record_time` timestamp[us, UTC],
            `_event_time` timestamp[us, UTC], `_size` int32 (bytes of the value) and, if the stream declares
            `unique`, `_key_hash` uint64 (of the unique values and the event time; NULL when a value is NULL)
            and `_content_hash` uint64 (of the record's bytes).
    late    the same columns, for records past their allowed lateness.
    dead    DEAD_SCHEMA
    rules   RULE_SCHEMA
    """

    timely: pa.Table
    late: pa.Table
    dead: pa.Table
    rules: pa.Table
