"""`KafkaLog`: the log of one stream as a topic."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pyarrow as pa

from headrace.errors import IntegrityError, RefusedError
from headrace.log.embedded import utc_now
from headrace.log.kafka.appending import KafkaAppender
from headrace.log.kafka.connection import Connection, TopicUnknownError
from headrace.log.kafka.fetching import KafkaFetcher
from headrace.log.kafka.groups import Groups
from headrace.log.kafka.offsets import ranges
from headrace.log.kafka.settings import KafkaSettings
from headrace.log.kafka.topics import ask_for, open_topic, require_same
from headrace.log.protocol import Appended, PartitionRange, Slice

__all__ = ["REPLICAS_BEHIND", "KafkaLog", "open_kafka_log"]

_LOOK_EVERY = timedelta(seconds=10)
REPLICAS_BEHIND = timedelta(seconds=30)
"""Kafka's `replica.lag.time.max.ms`: so long may a record be in its leader before readers are told of it."""


def open_kafka_log(
    settings: KafkaSettings,
    stream: str,
    *,
    clock: Callable[[], datetime] = utc_now,
    look_every: timedelta = _LOOK_EVERY,
    make: bool = True,
) -> KafkaLog:
    """Open the log of `stream` on Kafka; the topic is made when it is absent, unless `make` is False.

    A quiet topic is looked at every so often: for new partitions, and whether it is still the same one. One
    that gives records is looked at with each read.

    A `clock` of its own (virtual time) writes its time into the header of records that bring none. Raises
    TransientError when no broker answers, RefusedError when one says no or the topic differs from `settings`.
    """
    return KafkaLog(settings, stream, clock, look_every, make=make)


class KafkaLog:
    """A `Log` (see protocol.py) on a Kafka topic.

    Its clock is this machine's; record times are the topic's (LogAppendTime) or stand in a header. An append
    that fails may have written a part: what comes again is found as a copy where the stream has `unique`.
    """

    def __init__(
        self,
        settings: KafkaSettings,
        stream: str,
        clock: Callable[[], datetime],
        look_every: timedelta = _LOOK_EVERY,
        *,
        is_lane: bool = False,
        make: bool = True,
    ) -> None:
        self._is_lane = is_lane
        self._make = make
        self._look_every = look_every
        self._settings = settings
        self._name = stream
        self._clock = clock
        self._place = f"topic '{settings.topic}' of stream '{stream}'"
        self._connection = Connection(settings, self._place)
        self._topic, self._warnings = open_topic(self._connection, make=make, lane=is_lane)
        self._looked = time.monotonic()
        self._closed = threading.Event()
        self._fetcher = KafkaFetcher(self._connection, self._closed)
        self._groups = Groups(self._connection)
        self._appender: KafkaAppender | None = None
        self._appending = threading.Lock()
        self._reading = threading.Lock()
        self._lanes: dict[str, KafkaLog] = {}

    @property
    def stream(self) -> str:
        """The stream's name."""
        return self._name

    @property
    def warnings(self) -> tuple[str, ...]:
        """What is odd about the topic, and about those of its lanes, for whoever runs the pipeline."""
        return tuple(each for log in (self, *self._lanes.values()) for each in log._warnings)

    @property
    def creation_times(self) -> bool:
        """Whether record times are set by producers' clocks, and stand in no header."""
        return self._topic.creation_times and self._settings.record_time == "log"

    @property
    def identity(self) -> str:
        """The topic's id, which Kafka gives to no other one."""
        return f"kafka:{self._topic.identity}"

    @property
    def settings(self) -> KafkaSettings:
        """How the topic is used, for who reads it from other machines."""
        return self._settings

    @property
    def topic_id(self) -> str:
        """The cluster's own id of the topic."""
        return self._topic.identity

    @property
    def settles_after(self) -> timedelta:
        """See `Settles`: a leader tells of records when the replicas have them, or count as behind."""
        return REPLICAS_BEHIND if self._topic.replication > 1 else timedelta()

    def now(self) -> datetime:
        """The time of this machine, UTC."""
        return self._clock().astimezone(UTC)

    def partitions(self) -> tuple[PartitionRange, ...]:
        """The partitions and what they hold, in the order of their numbers."""
        self._require_open()
        self._look_again()
        with self._still_there():
            return ranges(self._connection, self._topic.partitions)

    def append(self, records: pa.Table) -> Appended:
        """Append `records` in their order; see `Log.append` and `KafkaAppender.append`."""
        with self._appending:
            self._require_open()
            if self._due():  # keys must go where other writers send them when there are new partitions
                self._look_again()
            if self._appender is None:
                self._appender = KafkaAppender(self._connection, self._topic.record_bytes_max)
            with self._still_there():
                return self._appender.append(records, self._topic.partitions, self._times(records))

    def _times(self, records: pa.Table) -> pa.ChunkedArray | None:
        """Return the record times that go into a header; None when the topic gives its own to all."""
        virtual = self._clock is not utc_now
        given = records.column("record_time") if "record_time" in records.column_names else None
        if given is not None and given.null_count == len(given):
            given = None
        if given is None and not virtual:
            return None
        if self._settings.record_time != "header":
            raise RefusedError(
                f"{self._place}: records that bring a record time; the topic gives its own",
                fix='set record_time = "header" for the stream in the profile',
            )
        now = pa.scalar(self.now(), pa.timestamp("us", "UTC"))
        if given is None:
            return pa.chunked_array([pa.repeat(now, records.num_rows)])
        given = given.cast(now.type)
        return pa.compute.fill_null(given, now) if virtual else given

    def read(self, positions: Mapping[int, int], *, rows_max: int, bytes_max: int, wait: timedelta) -> Slice:
        """Read from `positions` in record-time order over all partitions; see `Log.read`."""
        with self._reading:
            self._require_open()
            # Behind the end that is told, a leader may hold records that replicas do not have yet.
            asked = self.now() - self.settles_after
            if self._due():
                self._look_again()
            # Asked before the ends are: a load that is over by then has left its records before them.
            by_header = self._settings.record_time == "header" and not self._is_lane
            loading = by_header and self._groups.loading()
            with self._still_there():
                found = self._fetcher.read(
                    positions,
                    partitions=self._topic.partitions,
                    asked=asked,
                    rows_max=rows_max,
                    bytes_max=bytes_max,
                    wait=wait.total_seconds(),
                    confirm=self._look,
                )
            return replace(found, idle_since={}) if loading else found

    def _due(self) -> bool:
        return time.monotonic() - self._looked > self._look_every.total_seconds()

    def _look(self) -> Callable[[], None]:
        """Ask for the topic itself. What is returned raises IntegrityError when it is another one."""
        answer = ask_for(self._connection)

        def compare() -> None:
            self._topic = require_same(self._place, self._topic, answer())
            self._looked = time.monotonic()

        return compare

    def _look_again(self) -> None:
        self._look()()

    @contextmanager
    def _still_there(self) -> Iterator[None]:
        """Say that the topic is another one where that is why something failed."""
        try:
            yield
        except (TopicUnknownError, IntegrityError, RefusedError):
            self._look_again()
            raise

    def publish(self, reader: str, positions: Mapping[int, int]) -> None:
        """Commit a reader's positions to its consumer group, soon; never raises for a broker that is down."""
        self._require_open()
        self._groups.publish(reader, positions)

    def readers(self, name: str | None = None) -> Mapping[str, Mapping[int, int]]:
        """The positions of consumer groups; those of other programs by the group's name.

        With `name`, those of that reader of ours alone.
        """
        self._require_open()
        return self._groups.readers(self._topic.partitions, name)

    @contextmanager
    def load(self) -> Iterator[None]:
        """Mark the stream as being loaded while open; see `Log.load`. A dead one's mark ends after 60 s."""
        with self._groups.load():
            yield

    def lane(self, name: str, *, latest: bool = False) -> KafkaLog:
        """A side log of the stream: a topic of its own with one partition, compacted for `latest`.

        Threads that ask at once get the same one.
        """
        if name not in self._lanes:
            self._require_open()
            settings = replace(
                self._settings,
                topic=f"{self._settings.topic}.{name}",
                group=f"{self._settings.group_name}.{name}",
                partitions=1,
                like=self._settings.topic,
                compacted=latest,
                retention=None,
                record_time="header",  # what comes again keeps its time
            )
            opened = KafkaLog(
                settings, self._name, self._clock, self._look_every, is_lane=True, make=self._make
            )
            # No lock: brokers were asked until now, and neither `close` nor other lanes wait for that.
            if self._lanes.setdefault(name, opened) is not opened:
                opened.close()
            if self._closed.is_set():  # and `close` may not have seen this lane
                self._lanes[name].close()
                self._require_open()
        return self._lanes[name]

    def _require_open(self) -> None:
        if self._closed.is_set():
            raise RefusedError(f"{self._place}: the log is closed", fix="open it again")

    def close(self) -> None:
        """Give back connections, of the lanes too."""
        if self._closed.is_set():
            return
        self._closed.set()
        for lane in list(self._lanes.values()):
            lane.close()
        with self._reading:
            self._fetcher.close()
        with self._appending:
            if self._appender is not None:
                self._appender.close()
        self._groups.close()
