"""Copies dead letters from the store to a topic: bytes and key as they were, and why in headers.

It follows the store as every replica does, and never holds up the pipeline: a topic that is down is waited
for with growing pauses. Where it stands is written in the topic itself: the headers of the last record of
this store. So a letter may arrive twice, after an append whose answer was lost; its address tells. It is also
written in a file beside the store: retention takes letters out of the topic, and none out of the store.

The headers are those of Kafka Connect (KIP-298), so that tools which know them read these too, and ours.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import pyarrow as pa

from headrace.errors import HeadraceError, RefusedError, TransientError
from headrace.log.backoff import Waiting, when_ready
from headrace.log.between import read_between
from headrace.log.headers import CONNECT_PREFIX, LETTER_HEADER
from headrace.log.protocol import APPEND_SCHEMA, Log, settles_after
from headrace.replicate.folders import write_json
from headrace.store.reading import LETTER_BYTES

if TYPE_CHECKING:
    from headrace.log.protocol import PartitionRange

__all__ = ["DeadLetterTarget", "DeadLetterTopic", "letter_headers"]

_STORE_HEADER, _PLACE_HEADER = "headrace.store", "headrace.place"
_PARTITION = 0  # one partition: its last record says where the copy stands
_CHUNK = 500
_CHUNK_BYTES = 16_000_000
"""So many letters, and about so many bytes of them, are read and appended at once; at least one letter."""
_IDLE_S = 5.0
_AGAIN_S = 1.0
_JOIN_S = 0.5
_LOOK_BACK_FIRST = 64
_STAGES = {"malformed": "VALUE_CONVERTER"}
_STAGE_OTHERWISE = "TRANSFORMATION"
_ORDER = 'epoch, stream, lane, partition, "offset"'

Place = tuple[int, str, str, int, int]
"""Epoch, stream, lane, partition, offset: the order in which letters are copied."""


class Queryable(Protocol):
    """What is asked of the store."""

    def query(self, sql: str, *, rows_max: int | None = None, seconds_max: float = 5.0) -> pa.Table:
        """Run one reading query and end its transaction."""


@dataclass
class _Figures:
    sent: int = 0
    refused: int = 0
    waiting: str = ""


@dataclass(frozen=True)
class DeadLetterTarget:
    """Where the letters of some streams go.

    `topics` has the topic that each stream is read from; `place_file` keeps how far they were copied.
    """

    name: str
    topics: Mapping[str, str]
    pipeline: str
    store_id: str
    place_file: Path
    open: Callable[[], Log] = field(compare=False)


class DeadLetterTopic:
    """Follows the store in a thread of its own, from `start` to `close`."""

    def __init__(
        self, target: DeadLetterTarget, store: Queryable, *, tell: Callable[[str, str], None]
    ) -> None:
        """`tell` is given an event and why, for the journal."""
        self.target = target
        self._store = store
        self._tell = tell
        self._figures = _Figures()
        self._stop = threading.Event()
        self._changed = threading.Condition()
        self._wakes, self._served = 0, -1
        # Before the run commits anything: what it commits may pass a place of before the store was set back.
        self._head: int = store.query("SELECT coalesce(max(epoch), 0) FROM epochs").column(0)[0].as_py()
        self._told_again = False
        self._appended = False
        self._thread = threading.Thread(target=self._work, name="headrace-dead-letters", daemon=True)

    def start(self) -> None:
        """Begin to copy."""
        self._thread.start()

    def wake(self) -> None:
        """Say that there may be new letters; called by the engine's thread, never waits."""
        with self._changed:
            self._wakes += 1
            self._changed.notify_all()

    def facts(self) -> dict[str, Any]:
        """Return how it stands, as plain values."""
        return {"topic": self.target.name, **vars(self._figures)}

    def close(self, drain_s: float) -> bool:
        """Copy what is left for at most so many seconds, then end; return whether everything was copied.

        What is left is copied by the next run.
        """
        if not self._thread.is_alive():
            return True
        with self._changed:
            self._wakes += 1
            last = self._wakes
            self._changed.notify_all()
            done = self._changed.wait_for(lambda: self._served >= last, drain_s)
        self._stop.set()
        self.wake()
        # A client that waits for a broker cannot be told to stop waiting; the process need not wait for it.
        self._thread.join(_JOIN_S)
        return done

    def _work(self) -> None:
        while not self._stop.is_set():
            topic = self._patiently(self.target.open)
            if topic is None:
                return
            try:
                self._follow(topic)
            except HeadraceError as error:
                # The place is looked up again: what arrived counts, not what was answered.
                self._note(error.message)
                self._stop.wait(max(_AGAIN_S, settles_after(topic).total_seconds()))
            except Exception as error:  # noqa: BLE001 - whatever it is, the pipeline goes on without letters
                if not self._stop.is_set():
                    self._note(f"{type(error).__name__}: {error}")
                    self._stop.wait(_IDLE_S)
            finally:
                with suppress(Exception):
                    topic.close()

    def _patiently(self, action: Callable[[], Any]) -> Any:
        """Return what `action` gives once it does; None when it is time to end.

        A refusal is waited for too: an operator who grants a right need not start the pipeline again.
        """

        def attempt() -> Any:
            try:
                return action()
            except TransientError:
                raise
            except HeadraceError as error:
                raise TransientError(error.message, fix=error.fix) from error

        return when_ready(attempt, self._stop, self._waiting)

    def _waiting(self, pause: Waiting | None) -> None:
        if pause is None:
            self._figures.waiting = ""
            self._tell("dead-letter topic ready again", self.target.name)
        else:
            if pause.attempt == 1:
                self._note(pause.error.message)
            self._figures.waiting = str(pause)

    def _note(self, why: str) -> None:
        self._figures.waiting = why
        self._tell("dead-letter topic waits", f"{self.target.name}: {why}")

    def _follow(self, topic: Log) -> None:
        place = self._patiently(lambda: self._place(topic))
        while not self._stop.is_set():
            wakes = self._wakes  # looked at before the store is: a later letter wakes us again
            letters = self._letters(place)
            if not letters:
                with self._changed:
                    self._served = wakes
                    self._changed.notify_all()
                    self._changed.wait_for(lambda seen=wakes: self._wakes > seen, _IDLE_S)  # type: ignore[misc]
                continue
            self._append(topic, letters)
            self._appended = True
            self._figures.waiting = ""
            place = _place_of(letters[-1])
            write_json(self.target.place_file, {"store_id": self.target.store_id, "place": place})

    def _place(self, topic: Log) -> Place | None:
        """Return the place behind which letters are copied: the later one of the topic's and the file's.

        A place that the store has not come to is of a time before it was set back to an older copy. What it
        commits from then on has the epochs of letters that were copied, and is not what they were.
        """
        found = [_place_in(topic, self.target.store_id), self._kept_place()]
        places = [place for place in found if place is not None]
        if self._appended:  # they are of this run
            return max(places, default=None)
        known = [place for place in places if place[0] <= self._head]
        if len(known) < len(places) and not self._told_again:
            self._told_again = True
            self._tell(
                "dead letters are copied again",
                f"{self.target.name}: they were copied up to epoch {max(places)[0]}, and the store was at "
                f"{self._head}: it was set back. A letter may be in the topic twice: its address tells",
            )
        return max(known, default=None)

    def _kept_place(self) -> Place | None:
        """Return the place that the file has for this store; of one that is not understood, none."""
        try:
            kept = json.loads(self.target.place_file.read_text())
            epoch, stream, lane, partition, offset = kept["place"]
            place = (int(epoch), str(stream), str(lane), int(partition), int(offset))
            mine = kept["store_id"] == self.target.store_id
        except (FileNotFoundError, ValueError, TypeError, KeyError):
            return None
        return place if mine else None

    def _letters(self, place: Place | None) -> list[dict[str, Any]]:
        """Return the letters behind a place, in order, as many as may be copied at once."""
        epochs = self._behind(place, "epoch", letters_max=_CHUNK)
        if not epochs:
            return []
        # Only now their values are looked at, and only those of the epochs that are wanted.
        through = epochs[-1]["epoch"]
        taken, size = 0, 0
        for each in self._behind(place, f"{LETTER_BYTES} AS size", letters_max=_CHUNK, through=through):
            size += each["size"]
            if taken and size > _CHUNK_BYTES:
                break
            taken += 1
        return self._behind(place, "*", letters_max=taken, through=through)

    def _behind(
        self, place: Place | None, columns: str, *, letters_max: int, through: int | None = None
    ) -> list[dict[str, Any]]:
        streams = ", ".join(_quoted(name) for name in self.target.topics)
        after = "" if place is None else f"AND epoch >= {place[0]} AND ({_ORDER}) > {_literal(place)}"
        until = "" if through is None else f"AND epoch <= {through}"
        found: list[dict[str, Any]] = self._store.query(
            f"SELECT {columns} FROM dead_letters WHERE stream IN ({streams}) {after} {until} "
            f"ORDER BY {_ORDER} LIMIT {letters_max}",
            rows_max=letters_max,
        ).to_pylist()
        return found

    def _append(self, topic: Log, letters: Sequence[dict[str, Any]]) -> None:
        """Append letters; one that the topic refuses is passed over when it takes another one.

        A letter can be too large for a topic that its record was not too large for: headers were added.
        """
        rows = [self._row(letter) for letter in letters]
        try:
            topic.append(pa.Table.from_pylist(rows, schema=APPEND_SCHEMA))
        except RefusedError as error:
            refused = 0
            for row in rows:
                try:
                    topic.append(pa.Table.from_pylist([row], schema=APPEND_SCHEMA))
                except RefusedError:
                    refused += 1
            if refused == len(rows):
                raise TransientError(error.message, fix=error.fix) from error
            self._figures.refused += refused
            self._figures.sent += len(rows) - refused
            self._tell("dead letters refused", f"{self.target.name}: {refused}: {error.message}")
        else:
            self._figures.sent += len(rows)

    def _row(self, letter: Mapping[str, Any]) -> dict[str, Any]:
        return {
            "partition": _PARTITION,
            "record_time": None,
            "key": letter["key"],
            "value": letter["value"],
            "headers": letter_headers(
                letter,
                topic=self.target.topics[letter["stream"]],
                pipeline=self.target.pipeline,
                store_id=self.target.store_id,
            ),
        }


def letter_headers(
    letter: Mapping[str, Any], *, topic: str, pipeline: str, store_id: str
) -> list[dict[str, Any]]:
    """Return the headers of a letter: the record's own, Kafka Connect's, ours."""
    lane = "" if letter["lane"] == "main" else f".{letter['lane']}"
    in_address = "" if letter["lane"] == "main" else f"@{letter['lane']}"
    rules = [reason["rule"] for reason in letter["reasons"] or ()]
    details = "; ".join(f"{reason['rule']}: {reason['detail']}" for reason in letter["reasons"] or ())
    micros = int(pa.scalar(letter["record_time"], pa.timestamp("us", "UTC")).cast(pa.int64()).as_py())
    connect = {
        "topic": f"{topic}{lane}",
        "partition": letter["partition"],
        "offset": letter["offset"],
        "connector.name": pipeline,
        "task.id": 0,
        "stage": _STAGES.get(letter["outcome"], _STAGE_OTHERWISE),
        "class.name": "headrace.rows.stage.RowStage",
        "exception.class.name": "headrace.errors.RecordError",
        "exception.message": f"{letter['outcome']}: {details}" if details else letter["outcome"],
        "exception.stacktrace": "",
    }
    ours = {
        LETTER_HEADER: f"{letter['stream']}{in_address}:{letter['partition']}:{letter['offset']}",
        "headrace.outcome": letter["outcome"],
        "headrace.rule": ", ".join(rules),
        "headrace.original-record-time": micros,
        _STORE_HEADER: store_id,
        _PLACE_HEADER: ":".join(map(str, _place_of(letter))),
    }
    named = {**{f"{CONNECT_PREFIX}{name}": value for name, value in connect.items()}, **ours}
    # A letter of a letter: what an earlier dead-letter topic said gives way to what is said now.
    own = [{"key": h["key"], "value": h["value"]} for h in letter["headers"] or () if h["key"] not in named]
    return own + [{"key": name, "value": str(value).encode()} for name, value in named.items()]


def _place_of(letter: Mapping[str, Any]) -> Place:
    return letter["epoch"], letter["stream"], letter["lane"], letter["partition"], letter["offset"]


def _place_in(topic: Log, store_id: str) -> Place | None:
    """Return the place of the last letter of this store in the topic; None: it has none."""
    held: PartitionRange | None = next((p for p in topic.partitions() if p.partition == _PARTITION), None)
    if held is None:
        return None
    end, back = held.end, _LOOK_BACK_FIRST
    while end > held.start:
        start = max(held.start, end - back)
        found: Place | None = None
        last = -1
        for records in read_between(topic, {_PARTITION: start}, {_PARTITION: end}):
            for offset, headers in zip(
                records.column("offset").to_pylist(), records.column("headers").to_pylist(), strict=True
            ):
                said = {each["key"]: each["value"] for each in headers or ()}
                if offset > last and said.get(_STORE_HEADER) == store_id.encode() and _PLACE_HEADER in said:
                    found, last = _read_place(said[_PLACE_HEADER]), offset
        if found is not None:
            return found
        end, back = start, back * 4
    return None


def _read_place(value: bytes) -> Place:
    epoch, stream, lane, partition, offset = value.decode().split(":")
    return int(epoch), stream, lane, int(partition), int(offset)


def _literal(place: Place) -> str:
    epoch, stream, lane, partition, offset = place
    return f"({epoch}, {_quoted(stream)}, {_quoted(lane)}, {partition}, {offset})"


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
