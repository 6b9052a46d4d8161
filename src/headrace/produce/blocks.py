"""Records that are drawn in blocks, finished but for the time: what generators of blueprints have in common.

One more record costs little at 20 a second, and a million of them are a few operations on arrays.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from headrace.errors import ProfileError
from headrace.log.protocol import APPEND_SCHEMA
from headrace.produce.kernels import binary_of, constant_rows, join, repeat_earlier, write_millis

__all__ = [
    "PEOPLE_MAX",
    "Block",
    "BlockRecords",
    "draw_copies",
    "draw_delays",
    "require_disorder",
    "require_incident",
    "require_shares",
]

_COPY_DISTANCE_MAX = 256  # a copy follows its original within so many records
_KEPT = 2 * _COPY_DISTANCE_MAX
_MILLISECOND = timedelta(milliseconds=1)
_FUTURE_MAX = 12  # times the tolerance

Draw = Callable[[float], "Block"]
Counts = Callable[[Mapping[str, npt.NDArray[Any]]], None]
Defect = Callable[[bytes], bytes]

PEOPLE_MAX = 10_000_000
"""Of so many that a generator makes up, something is held of each."""


@dataclass(frozen=True)
class Block:
    """Finished records but for the time: `left`, then the time, then `right` is the record.

    left, right, key   binary, a value per record
    delay_ms           between event time and arrival; negative: the record comes from the future
    defect             0 none, else one more than the place of what is wrong among the defects
    copy               0 none, else how many records back the original is; negative: with other content
    counted            what is counted of the records that are neither broken nor copies, by name
    """

    left: pa.Array
    right: pa.Array
    key: pa.Array
    delay_ms: npt.NDArray[np.int64]
    defect: npt.NDArray[np.int8]
    copy: npt.NDArray[np.int32]
    counted: Mapping[str, npt.NDArray[Any]]


class BlockRecords:
    """Gives the records of blocks, one after the other, their times; breaks, copies and counts them.

    draw        makes the next block; it is told the rate, records per second
    count       is told the `counted` values of the good records that were given
    defects     each makes a record unusable, or one that breaks a rule
    conflict    gives a copy other content; needed by blocks with negative copies
    """

    def __init__(
        self,
        draw: Draw,
        count: Counts,
        defects: Sequence[Defect],
        conflict: Defect | None = None,
    ) -> None:
        self._draw = draw
        self._count = count
        self._defects = defects
        self._conflict = conflict
        self._block: Block | None = None
        self._used = 0
        self._recent = pa.table({"key": pa.array([], pa.binary()), "value": pa.array([], pa.binary())})
        self.broken = 0
        self.copied = 0

    def batch(self, start: datetime, count: int, *, rate: float) -> pa.Table:
        """Return the next `count` records; see `headrace.produce.generator.Generator`."""
        if count <= 0:
            return APPEND_SCHEMA.empty_table().select(["record_time", "key", "value"])
        pieces, done = [], 0
        first = round(start.timestamp() * 1_000_000)
        while done < count:
            if self._block is None or self._used == len(self._block.left):
                self._block, self._used = self._draw(rate), 0
            size = min(count - done, len(self._block.left) - self._used)
            arrivals = first + (np.arange(done, done + size) * (1e6 / rate)).astype(np.int64)
            pieces.append(self._piece(self._block, self._used, size, arrivals))
            self._used += size
            done += size
        return pa.concat_tables(pieces) if len(pieces) != 1 else pieces[0]

    def _piece(self, block: Block, at: int, size: int, arrivals: npt.NDArray[np.int64]) -> pa.Table:
        part = slice(at, at + size)
        times = constant_rows(size, "2026-01-31T23:59:59.999")
        write_millis(times, 0, arrivals // 1000 - block.delay_ms[part])
        value = join(block.left.slice(at, size), binary_of(times), block.right.slice(at, size))
        defect, copy = block.defect[part], block.copy[part]
        value = _changed(value, defect != 0, [self._defects[kind - 1] for kind in defect[defect != 0]])
        made = pa.table({"key": block.key.slice(at, size), "value": value})
        good = defect == 0
        if copy.any():
            made, copied = self._repeated(made, copy)
            self.copied += int(copied.sum())
            self.broken += int((~good & ~copied).sum())
            good &= ~copied
        else:
            self.broken += int((~good).sum())
        self._recent = pa.concat_tables([self._recent, made]).slice(max(0, len(self._recent) + size - _KEPT))
        if len(self._recent["key"].chunks) > 1:
            self._recent = self._recent.combine_chunks()
        self._count({name: values[part][good] for name, values in block.counted.items()})
        return pa.table(
            {
                "record_time": pa.array(arrivals, pa.timestamp("us", "UTC")),
                "key": made["key"],
                "value": made["value"],
            }
        )

    def _repeated(
        self, made: pa.Table, copy: npt.NDArray[np.int32]
    ) -> tuple[pa.Table, npt.NDArray[np.bool_]]:
        """Replace records by earlier ones; the copy of a copy is one of the original."""
        taken, copied = repeat_earlier(self._recent, made, np.abs(copy))
        conflicting = copied & (copy < 0)
        if self._conflict is not None and conflicting.any():
            value = taken["value"].combine_chunks()
            value = _changed(value, conflicting, [self._conflict] * int(conflicting.sum()))
            taken = taken.set_column(1, "value", value)
        return taken, copied


def _changed(value: pa.Array, which: npt.NDArray[np.bool_], changes: Sequence[Defect]) -> pa.Array:
    """Return `value` with some records changed, each by its own change; there are few of them."""
    if not changes:
        return value
    records = value.take(pa.array(np.flatnonzero(which))).to_pylist()
    changed = [change(record) for change, record in zip(changes, records, strict=True)]
    return pc.replace_with_mask(value, pa.array(which), pa.array(changed, pa.binary()))


def draw_delays(
    random: np.random.Generator,
    late: npt.NDArray[np.bool_],
    future: npt.NDArray[np.bool_],
    *,
    disorder: timedelta,
    lateness: timedelta,
    tolerance: timedelta,
    overdue: timedelta,
) -> npt.NDArray[np.int64]:
    """Draw by how many milliseconds each record follows its event.

    Ordinary ones do within `disorder`, most of them soon. Late ones miss `lateness` by `overdue` in the mean,
    future ones lie clearly beyond `tolerance`.
    """
    delay = disorder / _MILLISECOND * random.random(len(late)) ** 3
    mean = overdue / _MILLISECOND
    delay[late] = lateness / _MILLISECOND + random.exponential(mean, late.sum()) + mean / 8
    spread = random.random(future.sum()) * (_FUTURE_MAX - 2)
    delay[future] = -(tolerance / _MILLISECOND) * (2 + spread)
    return delay.astype(np.int64)


def draw_copies(random: np.random.Generator, count: int) -> npt.NDArray[np.int32]:
    """Draw for each record how many records back its original would be, were it a copy."""
    return random.integers(1, _COPY_DISTANCE_MAX + 1, count, dtype=np.int32)


def require_shares(generator: str, shares: Mapping[str, float]) -> None:
    """Raise ProfileError when shares of all records are none, or together more than 1."""
    wrong = [f"{name}={share}" for name, share in shares.items() if not 0 <= share <= 1]
    if wrong or sum(shares.values()) > 1:
        raise ProfileError(
            f"shares of the {generator} generator: {', '.join(wrong) or 'together more than 1'}",
            fix="give each share from 0 to 1, together at most 1",
        )


def require_disorder(disorder: timedelta, lateness: timedelta) -> None:
    """Raise ProfileError when ordinary records would be late ones."""
    if not timedelta(0) <= disorder < lateness:
        raise ProfileError(
            f"a disorder of {disorder}",
            fix=f"keep it below {lateness // timedelta(seconds=1)} seconds; later than that is `late_share`",
        )


def require_incident(generator: str, incident: str, incidents: Mapping[str, str]) -> None:
    """Raise ProfileError when there is no such incident; empty is none."""
    if incident and incident not in incidents:
        raise ProfileError(
            f"the {generator} generator has no incident '{incident}'", fix="one of: " + ", ".join(incidents)
        )
