"""The small descriptions that the oracle understands: streams and tables in plain Python."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from oracle_values import Reader

Row = dict[str, Any]
Expression = Callable[[Row], Any]


@dataclass(frozen=True)
class Arrival:
    """One record as the log took it."""

    stream: str
    partition: int
    offset: int
    record_time: datetime
    value: bytes | None


@dataclass(frozen=True)
class Column:
    name: str
    read: Reader
    nullable: bool = True


@dataclass(frozen=True)
class Rule:
    """`holds` gives True, False or None; an exception is a violation as well."""

    holds: Expression
    warn: bool = False


@dataclass(frozen=True)
class Stream:
    name: str
    columns: Sequence[Column]
    event_time: str | None = None
    allowed_lateness: timedelta = timedelta(minutes=1)
    future_tolerance: timedelta = timedelta(minutes=1)
    unique: Sequence[str] = ()
    derive: Mapping[str, Expression] = field(default_factory=dict)
    expect: Mapping[str, Rule] = field(default_factory=dict)


@dataclass(frozen=True)
class Window:
    """`session` is a gap; else windows of `size` start at every whole `slide` since 1970."""

    size: timedelta
    slide: timedelta | None = None
    session: bool = False


@dataclass(frozen=True)
class Aggregate:
    """`call` gets one tuple of arguments per row for which `where` is true."""

    call: Callable[[list[tuple[Any, ...]]], Any]
    arguments: Sequence[Expression] = ()
    where: Expression | None = None


@dataclass(frozen=True)
class Grouped:
    """A windowed, session or keyed table. `columns` sees keys, aggregates, window_start and window_end."""

    source: str
    columns: Mapping[str, Expression]
    aggregates: Mapping[str, Aggregate] = field(default_factory=dict)
    keys: Mapping[str, Expression] = field(default_factory=dict)
    window: Window | None = None
    where: Expression | None = None
    unnest: Callable[[Row], list[Row]] | None = None
    having: Expression | None = None


@dataclass(frozen=True)
class Plain:
    """A table of class rows. With `key`, the greatest (event time, record time, partition, offset) wins."""

    source: str
    columns: Mapping[str, Expression]
    where: Expression | None = None
    unnest: Callable[[Row], list[Row]] | None = None
    key: Sequence[str] = ()


@dataclass(frozen=True)
class View:
    """Rows computed from the rows of other tables."""

    compute: Callable[[Mapping[str, list[Row]]], list[Row]]


Table = Grouped | Plain | View
