"""What the executors' facts say of a micro-batch, in the form in which an epoch takes it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import pyarrow as pa

from headrace.engine.local.reader import Batch
from headrace.engine.spark.positions import Offset, lane_of
from headrace.engine.spark.wire import loaded
from headrace.errors import HeadraceError, IntegrityError
from headrace.log.protocol import RECORD_SCHEMA, Slice
from headrace.rows.result import RowResult
from headrace.store.instants import instant_of
from headrace.store.progress import LaneProgress, Progress

__all__ = ["Gathered", "gather", "raise_met"]

_RESULT = ("timely", "late", "dead", "rules")


@dataclass
class Gathered:
    """A micro-batch: what each lane read, in the order of the plan; `repeated` when the store has it already.

    caught_up  whether nothing was left in any lane when the batch was chosen
    bytes      of the records' values
    """

    batches: list[Batch]
    repeated: bool
    caught_up: bool
    bytes: int


def gather(progress: Progress, found: Iterable[tuple[str, bytes]], clock: datetime) -> Gathered:
    """Put the facts of a micro-batch together; `found` are (place, facts) as the data source gave them.

    Raises what an executor met, and IntegrityError when the parts do not reach from the store's positions to
    the batch's end without a hole.
    """
    lanes: dict[str, list[dict[str, Any]]] = {}
    end: Offset | None = None
    for place, data in found:
        facts = _met(data)
        if "end" in facts:
            end = facts["end"]
        else:
            lanes.setdefault(place, []).append(facts)
    if end is None:
        raise IntegrityError("Spark gave a micro-batch without its end", fix=_FIX)
    batches, moved, behind = [], False, False
    for text in end["at"]:
        batch, state = _batch(progress, text, end, lanes.get(text, []), clock)
        batches.append(batch)
        moved, behind = moved or state == "moved", behind or state == "behind"
    if behind and moved:
        raise IntegrityError("a micro-batch that the store holds in part", fix=_FIX)
    caught_up = all(
        end["at"][lane][number] >= last
        for lane, places in end["readable"].items()
        for number, last in places.items()
    )
    size = sum(facts["bytes"] for parts in lanes.values() for facts in parts)
    return Gathered(batches, behind, caught_up, size)


def raise_met(found: Iterable[bytes]) -> None:
    """Raise the first error that executors wrote into facts."""
    for data in found:
        _met(data)


def _met(data: bytes) -> dict[str, Any]:
    facts = loaded(data)
    error = facts.get("error")
    if isinstance(error, HeadraceError):
        raise error
    return facts


_FIX = "nothing was written; run again: reading goes on where the store stands; report this"


def _batch(
    progress: Progress, text: str, end: Offset, parts: list[dict[str, Any]], clock: datetime
) -> tuple[Batch, str]:
    stream, lane = lane_of(text)
    places = progress.lanes.get(stream, {}).get(lane, {})
    following = {int(number): at for number, at in end["at"][text].items()}
    ends = {int(number): at for number, at in end["ends"][text].items()}
    parts.sort(key=lambda facts: (facts["partition"], facts["start"]))
    state = _continuity(text, places, parts, following)
    asked = instant_of(end["asked"])
    idle = {}
    if stream not in end["loading"]:
        idle = {number: asked for number, at in following.items() if at >= ends[number]}
    with_records = [facts for facts in parts if "records" in facts]
    records = _together([facts["records"] for facts in with_records], _NO_RECORDS)
    result = None
    if with_records:
        tables = {name: _together([facts[name] for facts in with_records], None) for name in _RESULT}
        result = RowResult(**tables)
    gaps = _summed(parts, "gaps")
    lost = _summed(parts, "lost")
    known = {number: max(last, following[number]) for number, last in ends.items()}
    found = Slice(records, following, idle, gaps, known)
    # Never before what was read: the broker's clock may be ahead of this machine's.
    return Batch(stream, lane, found, max(clock, asked), result, lost), state


_NO_RECORDS = RECORD_SCHEMA.empty_table().select(["partition", "offset", "record_time"])


def _continuity(
    text: str, places: Mapping[int, LaneProgress], parts: list[dict[str, Any]], following: Mapping[int, int]
) -> str:
    """Say whether a lane "moved" on from the store's positions, is "behind" them, or "stays"."""
    at = {number: places[number].next if number in places else 0 for number in following}
    begins: dict[int, int] = {}
    reached: dict[int, int] = {}
    for facts in parts:
        number = facts["partition"]
        if facts["start"] != reached.get(number, facts["start"]):
            raise IntegrityError(f"{text}, partition {number}: a micro-batch with a hole", fix=_FIX)
        begins.setdefault(number, facts["start"])
        reached[number] = facts["next"]
    if begins and all(following[number] <= at[number] for number in begins):
        return "behind"
    for number, begin in begins.items():
        if begin != at[number] or reached[number] != following[number]:
            raise IntegrityError(
                f"{text}, partition {number}: a micro-batch from {begin} to {reached[number]}, where "
                f"{at[number]} to {following[number]} was due",
                fix=_FIX,
            )
    if any(following[number] != at[number] for number in following if number not in begins):
        raise IntegrityError(f"{text}: a micro-batch lacks a partition", fix=_FIX)
    return "moved" if begins else "stays"


def _together(tables: list[pa.Table], empty: pa.Table | None) -> pa.Table:
    if not tables:
        return empty
    return tables[0] if len(tables) == 1 else pa.concat_tables(tables)


def _summed(parts: list[dict[str, Any]], name: str) -> dict[int, int]:
    found: dict[int, int] = {}
    for facts in parts:
        if facts[name]:
            found[facts["partition"]] = found.get(facts["partition"], 0) + facts[name]
    return found
