"""The metrics of the last quarter of an hour, as alert rules look at them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

from headrace.observe.history import Queried
from headrace.store.names import text_literal

__all__ = ["LOOKED_BACK", "Figures", "figures_at"]

LOOKED_BACK = timedelta(minutes=15)
_NAMES = (
    "headrace_clock_skew_seconds",
    "headrace_disk_free_bytes",
    "headrace_epochs_total",
    "headrace_lag_records",
    "headrace_log_up",
    "headrace_processing_delay_seconds",
    "headrace_records_read_total",
    "headrace_records_total",
    "headrace_replica_lag_seconds",
    "headrace_replica_state",
    "headrace_restarts_total",
)
_STEP_S = 10
_FRESH = timedelta(seconds=30)
_SUBJECTS = ("stream", "replica")
_KINDS = ("outcome", "state")


@dataclass(frozen=True)
class _Points:
    name: str
    subject: str
    kind: str
    times: list[datetime]
    values: list[float]


class Figures:
    """Series by metric, by whose they are (a stream, a replica), by outcome or state where they have one.

    A point every 10 seconds. Series that ended more than 30 seconds ago are not there.
    """

    def __init__(self, found: list[_Points], now: datetime) -> None:
        self._now = now
        self._found = [points for points in found if points.times[-1] >= now - _FRESH]

    def each(self, name: str, kind: str = "") -> Iterator[tuple[str, float]]:
        """Give (subject, value of now) of each series of a metric."""
        for points in self._found:
            if points.name == name and (not kind or points.kind == kind):
                yield points.subject, points.values[-1]

    def difference(self, name: str, over: timedelta, subject: str = "", kind: str = "") -> float | None:
        """Return how much a metric grew in the time `over`; None when it is not known for so long."""
        changes = [
            points.values[-1] - before
            for points in self._found
            if points.name == name
            and (not subject or points.subject == subject)
            and (not kind or points.kind == kind)
            and (before := _value_at(points, self._now - over)) is not None
        ]
        return sum(changes) if changes else None

    def increase(self, name: str, over: timedelta, subject: str = "", kind: str = "") -> float | None:
        """Return how much a counter grew; when it is known for less long, since it is known."""
        known = [
            points
            for points in self._found
            if points.name == name
            and (not subject or points.subject == subject)
            and (not kind or points.kind == kind)
        ]
        if not known:
            return None
        grown = 0.0
        for points in known:
            before = _value_at(points, self._now - over)
            grown += max(0.0, points.values[-1] - (points.values[0] if before is None else before))
        return grown


def _value_at(points: _Points, at: datetime) -> float | None:
    """Return the value of the last point that is not after `at`."""
    found = None
    for time, value in zip(points.times, points.values, strict=True):
        if time > at:
            break
        found = value
    return found


def figures_at(store: Queried, now: datetime) -> Figures:
    """Read what the default rules look at, by one statement."""
    names = ", ".join(text_literal(name) for name in _NAMES)
    rows = store.query(
        "SELECT name, labels, list(taken ORDER BY taken) AS times, list(value ORDER BY taken) AS points "
        "FROM (SELECT name, labels, max(time) AS taken, arg_max(value, time) AS value FROM metrics "
        f"WHERE time > TIMESTAMPTZ '{(now - LOOKED_BACK).isoformat()}' "
        f"AND time <= TIMESTAMPTZ '{now.isoformat()}' AND name IN ({names}) "
        f"GROUP BY name, labels, floor(epoch(time) / {_STEP_S})) GROUP BY name, labels",
        rows_max=100_000,
        seconds_max=5.0,
    ).to_pylist()
    found = []
    for row in rows:
        labels = json.loads(row["labels"])
        subject = next((labels[name] for name in _SUBJECTS if name in labels), "")
        kind = next((labels[name] for name in _KINDS if name in labels), "")
        found.append(_Points(row["name"], subject, kind, row["times"], row["points"]))
    return Figures(found, now)
