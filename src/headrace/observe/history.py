"""Reads the history of metrics from a store, for charts: by the second or by the minute, as the age needs."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Protocol

from headrace.observe.metrics import METRICS_BY_NAME, Kind
from headrace.store.history import SECONDS_KEPT
from headrace.store.names import text_literal

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["POINTS_MAX", "Queried", "Series", "history", "is_cumulative"]

POINTS_MAX = 600
_ROWS_MAX = 1_000_000
_GAP_S = 150.0
"""Between two points further apart than this, and than three steps, nothing was observed."""


class Queried(Protocol):
    """A store, or whoever asks one."""

    def query(self, sql: str, *, rows_max: int, seconds_max: float) -> pa.Table:
        """Run one reading query."""


@dataclass(frozen=True)
class Series:
    """The values of one metric with one set of labels, in the order of time."""

    name: str
    labels: dict[str, str]
    times: list[datetime]
    values: list[float | None]


def is_cumulative(name: str) -> bool:
    """Return whether a series of this name only grows, so that its rate is what to look at."""
    metric = METRICS_BY_NAME.get(name)
    if metric is not None:
        return metric.kind is Kind.COUNTER
    base = METRICS_BY_NAME.get(name.removesuffix("_count").removesuffix("_sum"))
    return base is not None and base.kind is Kind.HISTOGRAM


def history(
    store: Queried,
    names: Iterable[str],
    *,
    since: datetime,
    until: datetime,
    points_max: int = POINTS_MAX,
    rates: bool = True,
) -> list[Series]:
    """Return the series of the metrics `names` between two instants, at most `points_max` points of each.

    Points are the last of their step. What only grows becomes a rate per second with `rates`: each point then
    is the mean since the one before it, and a counter that began anew counts from zero. Where nothing was
    observed for a while, a point without a value says so.
    """
    wanted = ", ".join(text_literal(name) for name in names) or "NULL"
    seconds = max((until - since).total_seconds(), 1.0)
    fine = until - since <= SECONDS_KEPT
    step = max(1.0 if fine else 60.0, seconds / max(1, points_max))
    relation, time = ("metrics", "time") if fine else ("metrics_by_minute", "minute")
    rows = store.query(
        f"SELECT name, labels, max({time}) AS taken, arg_max(value, {time}) AS value FROM {relation} "
        f"WHERE name IN ({wanted}) AND {time} >= TIMESTAMPTZ '{since.isoformat()}' "
        f"AND {time} <= TIMESTAMPTZ '{until.isoformat()}' "
        f"GROUP BY name, labels, floor(epoch({time}) / {step}) ORDER BY name, labels, taken",
        rows_max=_ROWS_MAX,
        seconds_max=5.0,
    )
    found: dict[tuple[str, str], Series] = {}
    columns = (rows.column(name).to_pylist() for name in ("name", "labels", "taken", "value"))
    for name, labels, at, value in zip(*columns, strict=True):
        series = found.setdefault((name, labels), Series(name, json.loads(labels), [], []))
        series.times.append(at.astimezone(UTC))
        series.values.append(value)
    apart = max(_GAP_S if not fine else _GAP_S / 10, 3 * step)
    return [_shown(series, apart, rates and is_cumulative(series.name)) for series in found.values()]


def _shown(series: Series, apart: float, rate: bool) -> Series:
    """Return the series with its gaps, as rates where that is wanted."""
    times: list[datetime] = []
    values: list[float | None] = []
    points: Sequence[tuple[datetime, float | None]] = list(zip(series.times, series.values, strict=True))
    before: tuple[datetime, float | None] | None = None
    for at, value in points:
        passed = 0.0 if before is None else (at - before[0]).total_seconds()
        if before is not None and passed > apart:
            times.append(before[0] + timedelta(seconds=apart / 2))
            values.append(None)
            before = None
        if not rate:
            times.append(at)
            values.append(value)
        elif before is not None and passed > 0 and value is not None and before[1] is not None:
            times.append(at)
            values.append((value - before[1] if value >= before[1] else value) / passed)
        before = (at, value)
    return Series(series.name, series.labels, times, values)
