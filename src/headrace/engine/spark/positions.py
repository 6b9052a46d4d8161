"""Chooses what a micro-batch reads; runs beside the driver, in the process that Spark has for a data source.

An offset, as Spark writes it into its checkpoint, is a dict:

    at      by "STREAM/LANE" and partition, the offset to read next
    ends    in the same shape, the ends of the partitions when the batch was chosen (the uncommitted ones)
    readable  in the same shape, how far they could be read: before the first open transaction
    asked   from when they are, microseconds since 1970 (see `believed`); None at the very start of a run
    loading the streams that were being loaded with history then: their ends say nothing about time
    moment  the record time at which the batch ends, milliseconds since 1970
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any

from headrace.engine.spark.cutting import Place, cut
from headrace.engine.spark.sizing import rows_within
from headrace.engine.spark.task import Lane, Task
from headrace.errors import IntegrityError
from headrace.log.kafka.connection import Connection
from headrace.log.kafka.groups import Groups
from headrace.log.kafka.log import REPLICAS_BEHIND
from headrace.log.kafka.offsets import end_offsets, offsets_at
from headrace.log.kafka.topics import Topic, look_at, require_same
from headrace.store.instants import micros_of

__all__ = ["Offset", "Positions", "believed", "lane_of", "lane_text"]

Offset = dict[str, Any]
_REDRIVE = "redrive"


def lane_text(lane: Lane) -> str:
    """Return a lane as the key of an offset."""
    return "/".join(lane)


def lane_of(text: str) -> Lane:
    """Return the lane that a key of an offset names."""
    stream, _, lane = text.rpartition("/")
    return stream, lane


def believed(asked: datetime, topics: Iterable[Topic]) -> datetime:
    """Return from when the ends are that were asked for: with replicas, later records may lack in them."""
    return asked - (REPLICAS_BEHIND if any(topic.replication > 1 for topic in topics) else timedelta())


class Positions:
    """The topics of a run, and how far a batch may go in them. Used by one thread."""

    def __init__(self, task: Task, clock: Callable[[], datetime]) -> None:
        self._task = task
        self._clock = clock
        self._connections = {name: Connection(lane.settings, lane.place) for name, lane in task.lanes.items()}
        self._topics = {name: Topic(lane.identity, 0, 0) for name, lane in task.lanes.items()}
        self._sized = False
        self._groups = {
            name: Groups(self._connections[name]) for name, lane in task.lanes.items() if lane.loading
        }

    def first(self) -> Offset:
        """Return where the run begins: where the store stands."""
        at = {lane_text(name): _texts(lane.start) for name, lane in self._task.lanes.items()}
        return {"at": at, "ends": at, "readable": at, "asked": None, "loading": [], "moment": 0}

    def latest(self, start: Offset, rows_max: int) -> Offset:
        """Return where the next batch ends; `start` itself when there is nothing to do.

        The first one has about `batch_bytes_max` bytes at most, as well; those after it are the caller's to
        judge by the one before. Raises IntegrityError when a topic was made again, TransientError when no
        broker answers.
        """
        now = self._clock()
        loading = [name[0] for name, groups in self._groups.items() if groups.loading()]
        starts, seen, ends = self._looked(start)
        asked = micros_of(believed(now, self._topics.values()))
        if all(ends[place] <= at for place, at in starts.items()):
            quiet = self._task.spark.quiet.total_seconds() * 1e6
            if start["asked"] is not None and asked - start["asked"] < quiet:
                return start
            return self._offset(starts, seen, ends, asked, loading, start["moment"])
        if not self._sized:
            spans = {p: (at, min(ends[p], at + rows_max)) for p, at in starts.items() if ends[p] > at}
            rows_max = rows_within(self._task.lanes, spans, rows_max, self._task.spark.batch_bytes_max)
            self._sized = True
        lanes = {place: at for place, at in starts.items() if place[1] == _REDRIVE}
        chosen = {place: min(ends[place], at + rows_max) for place, at in lanes.items()}
        main = {place: at for place, at in starts.items() if place not in lanes}
        cuts, moment = cut(
            main,
            {place: ends[place] for place in main},
            rows_max,
            self._offsets_at,
            since=start["moment"],
            until=micros_of(now) // 1000,
        )
        return self._offset({**chosen, **cuts}, seen, ends, asked, loading, moment)

    def _offset(
        self,
        at: Mapping[Place, int],
        ends: Mapping[Place, int],
        readable: Mapping[Place, int],
        asked: int,
        loading: list[str],
        moment: int,
    ) -> Offset:
        return {
            "at": _nested(at), "ends": _nested(ends), "readable": _nested(readable),
            "asked": asked, "loading": loading, "moment": moment,
        }  # fmt: skip

    def _looked(self, start: Offset) -> tuple[dict[Place, int], dict[Place, int], dict[Place, int]]:
        """Return where every partition stands, its uncommitted end, and how far it may be read."""
        starts: dict[Place, int] = {}
        seen: dict[Place, int] = {}
        ends: dict[Place, int] = {}
        for name, connection in self._connections.items():
            place = self._task.lanes[name].place
            known = self._topics[name] = require_same(place, self._topics[name], look_at(connection))
            stands = start["at"].get(lane_text(name), {})
            last = end_offsets(connection, range(known.partitions), committed=False)
            stable = end_offsets(connection, range(known.partitions), committed=True)
            if any(last[number] < int(stands.get(str(number), 0)) for number in last):
                # A broker that just became the leader may know less for a moment.
                last = end_offsets(connection, range(known.partitions), committed=False)
            for number in range(known.partitions):
                at = int(stands.get(str(number), 0))
                if at > last[number]:
                    raise IntegrityError(
                        f"{place}, partition {number}: the position {at} is beyond the log's end "
                        f"{last[number]}",
                        fix="the log lost records or is another one: restore it, or start with a new store",
                    )
                starts[*name, number] = at
                seen[*name, number] = last[number]
                ends[*name, number] = max(at, stable[number])
        return starts, seen, ends

    def _offsets_at(self, time: int) -> dict[Place, int]:
        """Return the first offset with a record time of `time` (ms) or later, where there is one."""
        found: dict[Place, int] = {}
        for name, connection in self._connections.items():
            if name[1] == _REDRIVE:
                continue
            numbers = range(self._topics[name].partitions)
            at = offsets_at(connection, numbers, time)
            found |= {(*name, number): offset for number, offset in at.items()}
        return found


def _texts(numbers: Mapping[int, int]) -> dict[str, int]:
    return {str(number): at for number, at in numbers.items()}


def _nested(places: Mapping[Place, int]) -> dict[str, dict[str, int]]:
    found: dict[str, dict[str, int]] = {}
    for (stream, lane, number), at in places.items():
        found.setdefault(lane_text((stream, lane)), {})[str(number)] = at
    return found
