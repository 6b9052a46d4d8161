"""A pipeline and the values it is made of.

Every value is frozen, comparable, picklable and printable; the place where it was declared is left out of
comparisons. `Pipeline` collects them; nothing here looks at a file, a clock or a network.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Literal

from headrace.declare.schema import Schema

__all__ = ["Alert", "Expect", "Function", "Panel", "Pipeline", "Place", "Reference", "Stream", "Table"]

OnViolation = Literal["reject", "warn"]
RecordTime = Literal["log", "header"]


@dataclass(frozen=True)
class Place:
    """Where in the author's files a thing was declared."""

    file: str
    line: int


@dataclass(frozen=True)
class Expect:
    """A condition that an accepted record meets; what happens to one that does not is `on_violation`.

    A condition that is NULL is not true, so it is violated.
    """

    condition: str
    on_violation: OnViolation = "reject"


@dataclass(frozen=True)
class Stream:
    """Records of one kind, in one log stream (see DESIGN: time and outcomes)."""

    name: str
    schema: Schema
    event_time: str | None
    allowed_lateness: timedelta
    future_tolerance: timedelta
    unique: tuple[str, ...]
    key: str | None
    derive: tuple[tuple[str, str], ...]
    expect: tuple[tuple[str, Expect], ...]
    record_time: RecordTime
    place: Place = field(compare=False)


@dataclass(frozen=True)
class Table:
    """A query over streams (kept up to date by the engine) or over tables (a view).

    `keep` is how long rows or closed windows stay in the store, None: for ever. `key` names the columns by
    which a `rows` table keeps only the latest record.
    """

    name: str
    query: str
    key: tuple[str, ...]
    keep: timedelta | None
    place: Place = field(compare=False)


@dataclass(frozen=True)
class Panel:
    """A chart over tables; `kind` says how its rows are drawn."""

    title: str
    query: str
    kind: str
    unit: str
    place: Place = field(compare=False)


@dataclass(frozen=True)
class Alert:
    """A query that gives true when somebody should look; it fires once it was true for `hold`."""

    name: str
    query: str
    hold: timedelta
    severity: str
    summary: str
    place: Place = field(compare=False)


@dataclass(frozen=True)
class Function:
    """A user's vectorised function: Arrow arrays in, one Arrow array of the same length out."""

    name: str
    arguments: tuple[str, ...]
    returns: str
    call: Callable[..., Any]
    place: Place = field(compare=False)


@dataclass(frozen=True)
class Reference:
    """A keyed CSV or Parquet file to join streams with."""

    name: str
    path: str
    key: tuple[str, ...]
    schema: Schema | None
    place: Place = field(compare=False)


class Pipeline:
    """Collects the declarations of one pipeline, in the order in which they were made."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.streams: tuple[Stream, ...] = ()
        self.tables: tuple[Table, ...] = ()
        self.panels: tuple[Panel, ...] = ()
        self.alerts: tuple[Alert, ...] = ()
        self.functions: tuple[Function, ...] = ()
        self.references: tuple[Reference, ...] = ()
