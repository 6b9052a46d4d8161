"""The values that a pipeline is made of.

Every value is frozen, comparable, picklable and printable; the place where it was declared is left out of
comparisons. Nothing here looks at a file, a clock or a network.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Literal

from headrace.declare.schema import Schema

__all__ = [
    "PANEL_KINDS",
    "SEVERITIES",
    "Alert",
    "Expect",
    "Function",
    "Panel",
    "Place",
    "Reference",
    "Stream",
    "Table",
]

PANEL_KINDS = ("table", "line", "area", "bar", "horizontal_bar", "pie", "gauge", "number", "map", "funnel")
"""How a panel's rows can be drawn: the first column is the place (a time, a name), the others are values."""

SEVERITIES = ("info", "warning", "critical")

OnViolation = Literal["reject", "warn"]
RecordTime = Literal["log", "header"]
Contract = Literal["evolve", "freeze"]


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
    contract: Contract = "evolve"
    label: str | None = None


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
