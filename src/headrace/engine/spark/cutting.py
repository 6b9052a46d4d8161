"""Where a micro-batch ends: at one record time in all partitions of all streams.

Partitions advance together in record time, as they do on the local engine. No answer rests on it: a record's
outcome depends on no cut. But a partition that ran hours ahead of another would keep all of these hours'
windows open.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

__all__ = ["Place", "cut"]

Place = tuple[str, str, int]
"""Stream, lane, partition."""


_STEPS_MAX = 48
_FILLED = 0.5


@dataclass(frozen=True)
class _Step:
    time: int
    ends: Mapping[Place, int]
    rows: int


def cut(
    starts: Mapping[Place, int],
    ends: Mapping[Place, int],
    rows_max: int,
    offsets_at: Callable[[int], Mapping[Place, int]],
    *,
    since: int,
    until: int,
) -> tuple[dict[Place, int], int]:
    """Return where each partition ends, and the moment at which they all do.

    `offsets_at(T)` gives the first offset of every partition with a record time of `T` or later (absent:
    there is none); times are milliseconds since 1970. Between `since` and `until` all unread records lie.
    Never more than `rows_max` records, and at least one when there is one: where a single millisecond holds
    more than that, it is cut inside.
    """
    total = sum(max(0, ends[place] - at) for place, at in starts.items())
    if total <= rows_max:
        return dict(ends), until

    def looked(time: int) -> _Step:
        found = offsets_at(time)
        # A record that came before an older one counts as no earlier: positions never go back.
        here = {p: min(ends[p], max(at, found.get(p, ends[p]))) for p, at in starts.items()}
        return _Step(time, here, sum(here[p] - at for p, at in starts.items()))

    low, high = _Step(since, starts, 0), _Step(until + 1, ends, total)
    for _ in range(_STEPS_MAX):
        if high.time - low.time <= 1 or low.rows >= rows_max * _FILLED:
            break
        step = looked((low.time + high.time) // 2)
        low, high = (step, high) if step.rows <= rows_max else (low, step)
    if low.rows:
        return dict(low.ends), low.time
    # One millisecond holds more than a batch may: of each partition its share.
    chosen, left = dict(starts), rows_max
    for place, end in high.ends.items():
        taken = min(end - starts[place], max(1, rows_max * (end - starts[place]) // high.rows), left)
        chosen[place] += taken
        left -= taken
    return chosen, low.time
