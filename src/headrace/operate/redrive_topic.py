"""Redrive from a dead-letter topic: records that somebody corrected there go back to their streams.

A record says what it stands for in the header `headrace.dead-letter`, or in Kafka Connect's headers. The
bytes are the topic's; everything else is what the store knows of the dead letter. How far a topic was taken
is published there as the position of the reader `redrive`, also on the way: who is killed and begins again
gives back few records a second time.

However many records a topic holds, few are in memory at once: it is read three times. The first time says
where the latest correction of each letter lies, the second one which of them differ from their letters and
are the latest of their records (one that failed again has several letters), and the third one gives those
back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from headrace.errors import RefusedError
from headrace.log.between import clamped, read_between
from headrace.log.headers import CONNECT_PREFIX, LETTER_HEADER
from headrace.operate.redrive import Address, Redriven, append_redriven, prepare, replace_exactly
from headrace.operate.redrive_parts import PLACE, cut_parts

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

    from headrace.log import Log
    from headrace.operate.redrive_parts import HoldsLetters

__all__ = ["READER", "Chosen", "TopicLetters"]

READER = "redrive"
ROWS_AT_ONCE = 2_000
PLACES_AT_ONCE = 100_000
_LANE, _PARTITION, _OFFSET, _AT_PARTITION, _AT_OFFSET, _AT_TIME = range(6)
"""Kept of each correction: lane (a number), partition and offset of what it corrects; its own place."""


@dataclass(frozen=True)
class Chosen:
    """How many records would be given back and the first of them, and how many not, and why."""

    records: int
    first: list[Redriven]
    unchanged: int
    unknown: int


@dataclass(frozen=True)
class _Going:
    """A correction that goes back, and where and when it came into the topic."""

    record: Redriven
    place: tuple[int, int]
    at_time: int

    @property
    def of(self) -> tuple[tuple[str, str], int, int]:
        """The record that it is a correction of: the same for every letter of that record."""
        address = self.record.address
        try:
            main = Address.parse(f"{address.stream}:{self.record.stands_for}")
        except RefusedError:  # somebody else wrote into the redrive lane
            main = address
        return (main.stream, main.lane), main.partition, main.offset


class TopicLetters:
    """What a topic holds behind the place up to which it was taken before; reads it once to see that.

    records    how many there are
    nameless   records without a usable address
    ends       where the topic ended
    """

    def __init__(self, topic: Log, streams: Mapping[str, str], *, from_beginning: bool = False) -> None:
        """`streams` has the stream of each topic, for Kafka Connect's headers."""
        ranges = topic.partitions()
        published = topic.readers(READER).get(READER, {})
        taken = {} if from_beginning else published
        self._topic, self._streams = topic, streams
        self._in_order = True  # false: what is behind a place can be older than what was given back before it
        self._published = {each.partition: min(published.get(each.partition, 0), each.end) for each in ranges}
        self._starts = clamped({each.partition: taken.get(each.partition, 0) for each in ranges}, ranges)
        self.ends = {each.partition: each.end for each in ranges}
        self.records = self.nameless = 0
        self._places = self._latest()

    @property
    def addresses(self) -> int:
        """How many letters there are corrections of."""
        return sum(map(len, self._places.values()))

    def look(self, letters: HoldsLetters, samples: int, *, unchanged: bool = False) -> Chosen:
        """Choose the corrections that are not the bytes of their letters; with `unchanged`, the others too.

        An address of which the store has no dead letter is passed over: it belongs to another store, or the
        record was never set aside.
        """
        import numpy as np

        addresses, known, first = self.addresses, 0, list[_Going]()
        lanes: dict[tuple[str, str], int] = {}
        kept = [np.empty((0, 6), np.int64)]
        for records in self._read():
            for part in self._parts(records, letters):
                known += len(part)
                going = [each for each in part if unchanged or each.record.value != each.record.before]
                first += going[: max(0, samples - len(first))]
                rows = [
                    (lanes.setdefault(lane, len(lanes)), partition, offset, *each.place, each.at_time)
                    for each in going
                    for lane, partition, offset in (each.of,)
                ]
                kept.append(np.array(rows, np.int64).reshape(-1, 6))
        places = self._latest_of(np.vstack(kept))
        self._places = _by_partition(places)
        return Chosen(
            len(places),
            [each.record for each in first if np.any(np.all(places == each.place, axis=1))],
            known - sum(map(len, kept)),
            addresses - known,
        )

    def give_back(self, letters: HoldsLetters, open_log: Callable[[str], Log]) -> int:
        """Append what `look` chose to the redrive lanes; return how many records that were.

        Publishes how far that is after every few records, or once all are given back where a record has
        corrections in several partitions: what is left of the others would pass for the latest.
        """
        given = 0
        for records in self._read():
            for part in self._parts(records, letters):
                given += append_redriven([each.record for each in part], open_log)
            if self._in_order:
                self._publish(_behind(records))
        self._publish(self.ends)
        return given

    def _read(self) -> Iterator[pa.Table]:
        return read_between(self._topic, self._starts, self.ends, rows_max=ROWS_AT_ONCE)

    def _publish(self, positions: Mapping[int, int]) -> None:
        """Publish that everything before the positions was given back; moves none of them back."""
        self._topic.publish(READER, {each: max(at, self._published[each]) for each, at in positions.items()})

    def _latest(self) -> dict[int, np.ndarray]:
        """Return where the latest correction of each letter lies: by partition, the offsets in order.

        Of one partition that is the last; of several, that of the latest record time.
        """
        import numpy as np

        lanes: dict[tuple[str, str], int] = {}
        kept, new = np.empty((0, 6), np.int64), list[tuple[int, ...]]()
        for records in read_between(self._topic, self._starts, self.ends):
            self.records += records.num_rows
            times = records.column("record_time").cast("int64").to_pylist()
            for row, at_time in zip(_headed(records), times, strict=True):
                address = _address_of(row["headers"] or (), self._streams)
                if address is None:
                    self.nameless += 1
                    continue
                lane = lanes.setdefault((address.stream, address.lane), len(lanes))
                new.append(
                    (lane, address.partition, address.offset, row["partition"], row["offset"], at_time)
                )
            if len(new) >= PLACES_AT_ONCE:
                kept, new = _last(np.vstack([kept, np.array(new, np.int64)]), 4, _AT_OFFSET), []
        if new:
            kept = _last(np.vstack([kept, np.array(new, np.int64)]), 4, _AT_OFFSET)
        return _by_partition(self._latest_of(kept))

    def _latest_of(self, kept: np.ndarray) -> np.ndarray:
        """Return the places of the latest correction of each."""
        of_partitions = _last(kept, 4, _AT_OFFSET)
        latest = _last(of_partitions, 3, _AT_TIME, _AT_PARTITION)
        self._in_order &= len(latest) == len(of_partitions)
        return latest[:, [_AT_PARTITION, _AT_OFFSET]]

    def _parts(self, records: pa.Table, letters: HoldsLetters) -> Iterator[list[_Going]]:
        """Give those of the records that lie at the places, and of which `letters` has the letter."""
        chosen = records.filter(self._is_chosen(records))
        found = {
            address: number
            for number, row in enumerate(_headed(chosen))
            if (address := _address_of(row["headers"] or (), self._streams)) is not None
        }
        if not found:
            return
        wanted = [(each.stream, each.lane, each.partition, each.offset) for each in found]
        sized = letters.dead_letters(addresses=wanted, limit=len(wanted), columns=(*PLACE, "bytes"))
        for start, count in cut_parts(sized.column("bytes").to_pylist()):
            places = sized.select(PLACE).slice(start, count).to_pylist()
            some: Any = [tuple(each.values()) for each in places]
            part = letters.dead_letters(addresses=some, limit=len(some)).to_pylist()
            yield [_going(letter, chosen, found) for letter in part]

    def _is_chosen(self, records: pa.Table) -> pa.Array:
        import numpy as np
        import pyarrow as pa

        partitions = records.column("partition").to_numpy()
        offsets = records.column("offset").to_numpy()
        found = np.zeros(len(offsets), bool)
        for partition, places in self._places.items():
            at = np.minimum(np.searchsorted(places, offsets), len(places) - 1)
            found |= (partitions == partition) & (places[at] == offsets)
        return pa.array(found)


def _going(letter: Mapping[str, Any], chosen: pa.Table, found: Mapping[Address, int]) -> _Going:
    number = found[Address.of(letter)]
    partition, offset = (chosen.column(name)[number].as_py() for name in ("partition", "offset"))
    (record,) = prepare([letter], replace_exactly(chosen.column("value")[number].as_py()))
    at_time = chosen.column("record_time")[number].cast("int64").as_py()
    return _Going(record, (partition, offset), at_time)


def _behind(records: pa.Table) -> dict[int, int]:
    """Return the positions behind the records."""
    last = records.group_by("partition").aggregate([("offset", "max")]).to_pylist()
    return {each["partition"]: each["offset_max"] + 1 for each in last}


def _headed(records: pa.Table) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = records.select(["partition", "offset", "headers"]).to_pylist()
    return rows


def _last(rows: np.ndarray, same: int, *order: int) -> np.ndarray:
    """Return, of the rows that are the same in so many columns, the one that is last by `order`."""
    import numpy as np

    rows = rows[np.lexsort([rows[:, column] for column in (*reversed(order), *reversed(range(same)))])]
    ends = np.any(rows[1:, :same] != rows[:-1, :same], axis=1)
    return rows[np.append(ends, True)] if len(rows) else rows


def _by_partition(places: np.ndarray | Sequence[tuple[int, int]]) -> dict[int, np.ndarray]:
    import numpy as np

    pairs = np.array(places, np.int64).reshape(-1, 2)
    return {
        int(partition): np.sort(pairs[pairs[:, 0] == partition, 1]) for partition in np.unique(pairs[:, 0])
    }


def _address_of(headers: Any, streams: Mapping[str, str]) -> Address | None:
    said = {each["key"]: each["value"] for each in headers}
    try:
        if LETTER_HEADER in said:
            return Address.parse(said[LETTER_HEADER].decode())
        topic, partition, offset = (
            said[f"{CONNECT_PREFIX}{name}"].decode() for name in ("topic", "partition", "offset")
        )
        if topic in streams:
            return Address.parse(f"{streams[topic]}:{partition}:{offset}")
    except (KeyError, ValueError, AttributeError, RefusedError):
        pass
    return None
