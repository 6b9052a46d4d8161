"""Samples of metrics in the store: a point a second for two hours, and a point a minute for two weeks.

They are written beside the engine, by a cursor of its own, because charts matter most when no epoch comes to
an end. The transactions touch only relations of this page, so they never conflict with an epoch's; each holds
what several seconds gave.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import datetime, timedelta

import duckdb
import pyarrow as pa

from headrace.store.store import Store

__all__ = ["MINUTES_KEPT", "SECONDS_KEPT", "SERIES_MAX", "SampleHistory", "labels_text"]

SECONDS_KEPT = timedelta(hours=2)
MINUTES_KEPT = timedelta(days=14)
SERIES_MAX = 2_000
"""Series beyond this are not kept: 2,000 of them are 14 million points of seconds, about 120 MB."""

_MINUTE = timedelta(minutes=1)
_RETIRE_EVERY = timedelta(minutes=5)
_SCHEMA = pa.schema([("time", pa.timestamp("us", "UTC")), ("series", pa.int32()), ("value", pa.float64())])


def labels_text(labels: Mapping[str, str]) -> str:
    """Return the labels of a series as the store has them: JSON text with its keys in order."""
    return json.dumps(dict(sorted(labels.items())), separators=(",", ":"), ensure_ascii=False)


class SampleHistory:
    """Writes samples; one thread calls it. Time is an argument."""

    def __init__(self, store: Store) -> None:
        self.dropped = 0
        """Series that came when there were as many as may be."""
        self._store = store
        self._cursor = store.cursor_beside()
        found = self._cursor.execute("SELECT name, labels, series FROM _headrace.series").fetchall()
        self._series: dict[tuple[str, str], int] = {(name, labels): number for name, labels, number in found}
        self._refused: set[tuple[str, str]] = set()
        self._new: list[tuple[int, str, str]] = []
        self._times: list[datetime] = []
        self._numbers: list[int] = []
        self._values: list[float] = []
        self._minutes_through: datetime | None = self._cursor.execute(
            "SELECT max(minute) FROM _headrace.sample_minutes"
        ).fetchall()[0][0]
        self._retire_at: datetime | None = None

    def add(self, time: datetime, samples: Sequence[tuple[str, str, float]]) -> None:
        """Take the samples (name, labels text, value) of one time; `write` makes them durable."""
        for name, labels, value in samples:
            number = self._series.get((name, labels))
            if number is None:
                number = self._number_of(name, labels)
                if number is None:
                    continue
            self._times.append(time)
            self._numbers.append(number)
            self._values.append(value)

    def _number_of(self, name: str, labels: str) -> int | None:
        if len(self._series) >= SERIES_MAX:
            if (name, labels) not in self._refused and len(self._refused) < SERIES_MAX:
                self._refused.add((name, labels))
                self.dropped += 1
            return None
        number = len(self._series)
        self._series[name, labels] = number
        self._new.append((number, name, labels))
        return number

    def write(self, now: datetime) -> None:
        """Write what was added, fold the minutes that are over, and take out what is too old.

        What cannot be written (a full disk) is dropped: it must not stop a pipeline, nor fill its memory.
        """
        arrays = [
            pa.array(values, field.type)
            for values, field in zip((self._times, self._numbers, self._values), _SCHEMA, strict=True)
        ]
        self._times, self._numbers, self._values = [], [], []
        new, self._new = self._new, []
        cursor, through = self._cursor, self._minutes_through
        try:
            cursor.execute("BEGIN")
            for line in new:
                cursor.execute("INSERT INTO _headrace.series VALUES (?, ?, ?)", list(line))
            if len(arrays[0]):
                cursor.register("_samples", pa.Table.from_arrays(arrays, schema=_SCHEMA))
                cursor.execute("INSERT INTO _headrace.samples SELECT * FROM _samples")
            self._fold(now)
            with self._store.ample():
                cursor.execute("COMMIT")
        except duckdb.Error:
            # A commit that failed has rolled back by itself.
            with suppress(duckdb.Error), self._store.ample(always=True):
                cursor.execute("ROLLBACK")
            for number, name, labels in new:
                self._series.pop((name, labels), number)
            self._minutes_through = through
        finally:
            with suppress(duckdb.Error):
                cursor.unregister("_samples")

    def _fold(self, now: datetime) -> None:
        minute = now.replace(second=0, microsecond=0)
        if self._minutes_through is not None and self._minutes_through >= minute:
            # The clock was set back: what it was ahead by has yet to come.
            self._cursor.execute("DELETE FROM _headrace.samples WHERE time > ?", [now])
            self._cursor.execute("DELETE FROM _headrace.sample_minutes WHERE minute >= ?", [minute])
            self._minutes_through = minute - _MINUTE
        if self._retire_at is not None and self._retire_at > now + _RETIRE_EVERY:
            self._retire_at = None
        if self._minutes_through is None or self._minutes_through < minute - _MINUTE:
            since = "" if self._minutes_through is None else "time >= ? AND "
            bounds = [minute] if self._minutes_through is None else [self._minutes_through + _MINUTE, minute]
            self._cursor.execute(
                "INSERT INTO _headrace.sample_minutes SELECT date_trunc('minute', time) AS minute, series, "
                f"arg_max(value, time), min(value), max(value) FROM _headrace.samples WHERE {since}time < ? "
                "GROUP BY ALL",
                bounds,
            )
            self._minutes_through = minute - _MINUTE
        if self._retire_at is None or now >= self._retire_at:
            self._retire_at = now + _RETIRE_EVERY
            self._cursor.execute("DELETE FROM _headrace.samples WHERE time < ?", [now - SECONDS_KEPT])
            self._cursor.execute(
                "DELETE FROM _headrace.sample_minutes WHERE minute < ?", [now - MINUTES_KEPT]
            )

    def close(self) -> None:
        """Give the cursor back."""
        self._cursor.close()
