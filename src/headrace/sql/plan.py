"""What planning a pipeline gives: every query taken apart into row part, aggregate part and result part.

Plans are frozen values made of SQL text and names; `rows/` and `engine/` run them, and nothing else looks
into the user's SQL. The names inside a plan are fixed, so that no text has to be substituted:

    "_rows"     the relation that a row part reads: the stream's declared and derived columns, then
                "_partition" INTEGER, "_offset" BIGINT, "_record_time" TIMESTAMPTZ, "_lane" VARCHAR
    "_time"     the event time, TIMESTAMPTZ, in the output of a row part
    "k0", "k1"  the grouping keys, in the output of a row part and in the state
    "a0", "a1"  the arguments of aggregates, in the output of a row part
    "g0", "g1"  the values of aggregates, in the relation "_groups" that a result part reads; it also holds
                the keys and, for windowed and session tables, "window_start" and "window_end" TIMESTAMPTZ
    "g0_n"      columns of the state start with the name of their aggregate
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum
from typing import Literal

from headrace.declare import Alert, Expect, Function, Panel, Pipeline, Reference, Stream, Table
from headrace.errors import Problem

__all__ = [
    "Aggregate",
    "Check",
    "Derived",
    "NamedColumn",
    "PipelinePlan",
    "SideTable",
    "StateColumn",
    "StreamPlan",
    "TableClass",
    "TablePlan",
    "Window",
]


class TableClass(StrEnum):
    """How a table is kept (DESIGN: the table stage)."""

    ROWS = "rows"
    WINDOWED = "windowed"
    SESSION = "session"
    KEYED = "keyed"
    VIEW = "view"


@dataclass(frozen=True)
class NamedColumn:
    """A column of a relation in a plan; `type` is DuckDB's name."""

    name: str
    type: str


@dataclass(frozen=True)
class Derived:
    """A column computed for every record; it may use the declared columns and the derived ones before it."""

    name: str
    sql: str
    type: str


@dataclass(frozen=True)
class Check:
    """An expectation over declared and derived columns."""

    name: str
    sql: str
    expect: Expect


@dataclass(frozen=True)
class StreamPlan:
    """What the row stage does with one stream. `columns` is what tables see: declared, then derived."""

    stream: Stream
    derived: tuple[Derived, ...]
    checks: tuple[Check, ...]
    columns: tuple[NamedColumn, ...]
    functions: tuple[Function, ...]


@dataclass(frozen=True)
class Window:
    """A window over event time. Starts are aligned to 1970-01-01 UTC.

    tumbling: slide = size. sliding: slide < size. session: size is the gap, slide is unused.
    """

    kind: Literal["tumbling", "sliding", "session"]
    size: timedelta
    slide: timedelta


@dataclass(frozen=True)
class StateColumn:
    """One column of a table's state and its three ways to be computed.

    partial  an aggregate over the rows of a row part:          count("a0")
    merge    over one state row `t` and one partial row `b`:     t."g0_n" + b."g0_n"
    combine  an aggregate over several state rows `p` of a group: sum(p."g0_n")
    """

    name: str
    type: str
    partial: str
    merge: str
    combine: str


@dataclass(frozen=True)
class SideTable:
    """Values kept apart from the state, one row per group and value: "_value" and "_count" BIGINT.

    `argument` is the row part's column that is counted (NULL is not). `value` is the aggregate over the side
    rows of one group that gives the aggregate's value, for example `count(*)` for a distinct count;
    `empty` is the value of a group that has no side rows. With `ranked` it is over rows that have two columns
    more, BIGINT: "_all", the sum of "_count" in the group, and "_upto", the part of it up to this "_value" in
    their order.
    """

    argument: str
    type: str
    value: str
    empty: str = "NULL"
    ranked: bool = field(default=False, repr=False)  # follows from `value`; fingerprints are made of reprs


@dataclass(frozen=True)
class Aggregate:
    """An aggregate of the short list.

    `value` is an expression over its state columns; with a `side` table, the value is `side.value` instead
    and `state` is empty. `function` is the name that an engine maps (`count_distinct` for a distinct count),
    `arguments` are columns of the row part, `parameters` are literals (a quantile's fraction). `approximate`
    marks the ones that engines need not answer equally.
    """

    name: str
    function: str
    arguments: tuple[NamedColumn, ...]
    parameters: tuple[str, ...]
    type: str
    state: tuple[StateColumn, ...]
    value: str
    side: SideTable | None = None
    approximate: bool = False


@dataclass(frozen=True)
class TablePlan:
    """One table. What is None or empty does not apply to its class.

    row_sql     SELECT over "_rows" (and reference relations) that gives "_partition", "_offset",
                "_record_time", "_time", then keys and arguments; for class rows the output columns under
                their own names.
    unnests     whether one record may give several rows there, so that records kept must be counted apart.
    result_sql  expressions over "_groups", one per column of `columns`, in their order.
    view_sql    the whole query of a view, over tables.
    having_sql  condition over "_groups"; a group for which it is not true is not in the table.
    key         the output columns that identify a row; empty where that is not possible.
    sources     the streams (for a view: tables) read; `references` the reference tables joined.
    fingerprint changes when, and only when, state written by another plan could not be used with this one.
    """

    table: Table
    kind: TableClass
    sources: tuple[str, ...]
    references: tuple[str, ...]
    columns: tuple[NamedColumn, ...]
    key: tuple[str, ...]
    fingerprint: str
    row_sql: str = ""
    unnests: bool = False
    window: Window | None = None
    keys: tuple[NamedColumn, ...] = ()
    aggregates: tuple[Aggregate, ...] = ()
    result_sql: tuple[str, ...] = ()
    having_sql: str = ""
    view_sql: str = ""

    @property
    def name(self) -> str:
        """The table's name."""
        return self.table.name


@dataclass(frozen=True)
class PipelinePlan:
    """Everything an engine needs.

    `tables` are ordered so that a view stands after what it reads; `warnings` are advice to the author
    (`headrace check` prints them).
    """

    pipeline: Pipeline
    streams: Mapping[str, StreamPlan]
    tables: tuple[TablePlan, ...]
    references: Mapping[str, Reference]
    panels: tuple[Panel, ...]
    alerts: tuple[Alert, ...]
    warnings: tuple[Problem, ...] = ()
