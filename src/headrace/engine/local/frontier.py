"""How far record time has come, and which windows are closed by that (DESIGN: time and outcomes)."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

import numpy as np
import pyarrow as pa

from headrace.sql.plan import Window
from headrace.store.instants import micros_of, micros_of_length
from headrace.store.progress import LaneProgress, Progress

__all__ = [
    "advance",
    "closed_end",
    "floor_to",
    "held",
    "note_behind",
    "settled",
    "stream_frontier",
    "table_frontier",
]

_IDLE_MARGIN = 5_000_000
"""An end that was proved at a time says that nothing older is missing.

But clocks of writers may differ by this.
"""


def advance(place: LaneProgress, *, latest: int | None, clock: datetime, idle_since: datetime | None) -> None:
    """Move a frontier to the latest record time read, or behind a proof that the end was reached.

    It is never ahead of the log's clock and never goes back.
    """
    candidates = [place.frontier] if place.frontier is not None else []
    if latest is not None:
        candidates.append(min(latest, micros_of(clock)))
    if idle_since is not None:
        candidates.append(micros_of(idle_since) - _IDLE_MARGIN)
    place.frontier = max(candidates, default=None)


def note_behind(
    place: LaneProgress, records: pa.Table, partition: int, tolerance: int, *, idle: bool
) -> None:
    """Take note of records that lie behind the frontier by more than `tolerance`; called before `advance`.

    History that is loaded beside a running engine does, and what comes after a clock stepped back. From the
    first one until the end is proved (`idle`; a load in progress prevents it) the partition is `held`: there
    may be more of the kind.
    """
    if records.num_rows:
        mine = records.column("partition").to_numpy() == partition
        times = records.column("record_time").cast(pa.int64()).to_numpy()[mine]
        offsets = records.column("offset").to_numpy()[mine]
        if len(times) and (np.diff(offsets) < 0).any():
            times = times[np.argsort(offsets)]
        if len(times):
            reached = np.maximum.accumulate(times)
            if place.frontier is not None:
                reached = np.maximum(reached, place.frontier)
            behind = reached - times > tolerance
            if behind.any():
                place.held, place.behind = True, int(reached[behind][-1])
    if idle:
        place.held = False


def held(progress: Progress, streams: Iterable[str]) -> bool:
    """Return whether a partition of one of the streams is held: what is behind may still be coming."""
    lanes = (progress.lanes.get(stream, {}).get("main", {}) for stream in streams)
    return any(place.held for places in lanes for place in places.values())


def settled(progress: Progress, stream: str, frontier: int, horizon: int) -> bool:
    """Return whether a stream's frontier moved on by `horizon` since something behind it was read."""
    places = progress.lanes.get(stream, {}).get("main", {}).values()
    return not held(progress, [stream]) and all(
        place.behind is None or frontier > place.behind + horizon for place in places
    )


def stream_frontier(progress: Progress, stream: str) -> int | None:
    """Return the least frontier of a stream's partitions; None while one of them has shown nothing."""
    places = progress.lanes.get(stream, {}).get("main", {})
    least: int | None = None
    for place in places.values():
        if place.frontier is None:
            return None
        least = place.frontier if least is None else min(least, place.frontier)
    return least


def table_frontier(progress: Progress, streams: Iterable[str]) -> int | None:
    """Return the least frontier over the streams that a table reads."""
    frontiers = [stream_frontier(progress, stream) for stream in streams]
    known = [frontier for frontier in frontiers if frontier is not None]
    return min(known) if known and len(known) == len(frontiers) else None


def floor_to(instant: int, step: int) -> int:
    """Return the last multiple of `step` that is not after `instant`; also right before 1970."""
    return instant - instant % step


def closed_end(window: Window, frontier: int, lateness: int) -> int:
    """Return the end of the last window that is closed: end + lateness < frontier."""
    before = frontier - lateness - 1
    if window.kind == "session":
        return before
    size, slide = micros_of_length(window.size), micros_of_length(window.slide)
    return floor_to(before - size, slide) + size
