"""Positions that a reader brings, checked against what the partitions hold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from headrace.errors import IntegrityError, RefusedError
from headrace.log.protocol import PartitionRange

__all__ = ["start_positions"]


def start_positions(
    place: str, ranges: Sequence[PartitionRange], positions: Mapping[int, int]
) -> dict[int, int]:
    """Return where to read each partition from, checked against what it holds."""
    unknown = sorted(set(positions) - {held.partition for held in ranges})
    if unknown:
        raise IntegrityError(
            f"{place}: a position in partition {unknown[0]}; there are {len(ranges)} partitions",
            fix="the position belongs to another log: use the store that was made with this one",
        )
    checked = {}
    for held in ranges:
        position = positions.get(held.partition, held.start)
        here = f"{place}, partition {held.partition}"
        if position > held.end:
            raise IntegrityError(
                f"{here}: the position {position} is beyond the log's end {held.end}",
                fix="the log lost records or is another one: restore it, or start with a new store",
            )
        if position < held.start:
            raise RefusedError(
                f"{here}: records {position} to {held.start - 1} are gone, retention deleted them",
                fix='to go on with the oldest record that is left: engine_settings.on_data_loss = "continue"',
            )
        checked[held.partition] = position
    return checked
