"""The embedded log: every stream of a project in one SQLite file, shared by any number of processes."""

from __future__ import annotations

import sqlite3
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa

from headrace.errors import HeadraceError, IntegrityError, RefusedError
from headrace.log.appending import Appender, microseconds_of
from headrace.log.database import Connection, FileIdentity, create_database, errors_named
from headrace.log.loads import dead_loads, load_in_progress, load_marked, remove_dead_marks
from headrace.log.positions import start_positions
from headrace.log.protocol import Appended, PartitionRange, Slice
from headrace.log.reading import BatchReader, arrange, partition_ranges
from headrace.log.retention import Limits, Retention, positions_of_readers

__all__ = ["EmbeddedLog", "open_embedded_log", "utc_now"]

# How often a waiting read asks whether the file changed; one question costs about 10 us.
_PAUSE_FIRST_S = 0.0005
_PAUSE_MAX_S = 0.020
_PAUSE_GROWTH = 1.5

_RETENTION_EVERY_S = 10.0
_RETENTION_EVERY_BYTES = 16 * 1024 * 1024
_GIVEN_BACK_PAGES = 4096
"""At once, so that others who append do not wait for long: 32 MiB."""


def utc_now() -> datetime:
    """Return the time of the machine's clock, UTC."""
    return datetime.now(UTC)


def open_embedded_log(
    path: Path,
    stream: str,
    *,
    partitions: int | None = None,
    retention_age: timedelta | None = None,
    retention_bytes: int | None = None,
    bytes_max: int | None = None,
    clock: Callable[[], datetime] = utc_now,
    durable: bool = True,
) -> EmbeddedLog:
    """Open the log of `stream` in the file at `path`; file and stream are made when they are missing.

    `partitions` None: as many as there are, one for a new stream; more than there are: added; fewer:
    RefusedError. Limits hold for what is appended through this log; sizes are as stored.
    `durable=False` does not wait for the disk: for tests, a power cut may damage the file.
    """
    limits = Limits(retention_age, retention_bytes, bytes_max)
    return EmbeddedLog(Path(path), stream, "", partitions, limits, clock, durable)


class EmbeddedLog:
    """A `Log` (see protocol.py) in an SQLite file.

    Appends, reads and the rest have a connection each, so that threads that do different things do not wait
    for each other.
    """

    def __init__(
        self,
        path: Path,
        stream: str,
        lane: str,
        partitions: int | None,
        limits: Limits,
        clock: Callable[[], datetime],
        durable: bool,
    ) -> None:
        if partitions is not None and partitions < 1:
            raise RefusedError(f"stream '{stream}': {partitions} partitions", fix="give 1 or more")
        self._path = path
        self._name = stream
        self._lane = lane
        self._place = f"log file {path}, stream '{stream}'" + (f", lane '{lane}'" if lane else "")
        self._limits = limits
        self._clock = clock
        self._durable = durable
        self._file: FileIdentity = create_database(path)
        self._writer = Connection(path, synchronous="FULL" if durable else "OFF")
        self._reader = Connection(path, synchronous="NORMAL" if durable else "OFF")
        # Published positions may be lost in a power cut: older ones only keep records for longer.
        self._control = Connection(path, synchronous="NORMAL" if durable else "OFF")
        self._lanes: dict[str, EmbeddedLog] = {}
        self._lanes_lock = threading.Lock()
        self._closed = threading.Event()
        self._pause_s = _PAUSE_FIRST_S
        self._quiet: tuple[int, Slice] | None = None
        self._retention_due = 0.0
        self._retention_bytes = 0
        try:
            self._stream, self._identity = self._found_or_made(partitions)
        except BaseException:
            self.close()
            raise
        self._appender = Appender(self._stream, self._place, limits)
        self._retention = Retention(self._stream, limits)
        self._batches = BatchReader(self._stream, stream, self._place)

    def _found_or_made(self, partitions: int | None) -> tuple[int, str]:
        """Return the stream's number in the file and its identity."""
        query = "SELECT id, identity, partitions FROM streams WHERE name = ? AND lane = ?"
        with self._control.held() as sqlite:
            found = sqlite.execute(query, (self._name, self._lane)).fetchone()
            if found is not None and partitions in (None, found[2]):
                return int(found[0]), str(found[1])
        with self._writer.writing() as sqlite:
            found = sqlite.execute(query, (self._name, self._lane)).fetchone()
            if found is None:
                identity, existing = uuid.uuid4().hex, 0
                cursor = sqlite.execute(
                    "INSERT INTO streams (name, lane, identity, partitions) VALUES (?, ?, ?, ?)",
                    (self._name, self._lane, identity, partitions or 1),
                )
                stream = int(cursor.lastrowid or 0)
            else:
                stream, identity, existing = found
            wanted = partitions or existing or 1
            if wanted < existing:
                raise RefusedError(
                    f"{self._place} has {existing} partitions, asked for {wanted}: none can be taken away",
                    fix=f"set partitions = {existing} in the profile, or delete the log and begin anew",
                )
            sqlite.execute("UPDATE streams SET partitions = ? WHERE id = ?", (wanted, stream))
            sqlite.executemany(
                "INSERT INTO partitions VALUES (?, ?, 0, 0, 0, 0)",
                [(stream, partition) for partition in range(existing, wanted)],
            )
            return stream, identity

    @property
    def stream(self) -> str:
        """The stream's name."""
        return self._name

    @property
    def identity(self) -> str:
        """What tells this log from every other one: made with the stream, gone with the file."""
        return self._identity

    def now(self) -> datetime:
        """The log's clock, UTC."""
        return self._clock().astimezone(UTC)

    def partitions(self) -> tuple[PartitionRange, ...]:
        """The partitions and what they hold, in the order of their numbers."""
        with self._control.held() as sqlite:
            return partition_ranges(sqlite, self._stream)

    def stored_bytes(self) -> Mapping[int, int]:
        """How many bytes of the file each partition takes; see `KnowsBytes`."""
        with self._control.held() as sqlite:
            rows = sqlite.execute(
                "SELECT partition, stored_bytes FROM partitions WHERE stream = ?", (self._stream,)
            )
            return dict(rows.fetchall())

    def append(self, records: pa.Table) -> Appended:
        """Append `records` in their order; see `Log.append`."""
        self._require_same_file()
        now = self.now
        with self._writer.held() as sqlite:
            encoded = self._appender.prepared(records, len(partition_ranges(sqlite, self._stream)))
            if encoded.stored_bytes and self._limits.bytes_max is not None:
                self._make_room(encoded.stored_bytes)
            with self._writer.writing():
                appended = self._appender.append(sqlite, encoded, now)
            self._retention_bytes += encoded.stored_bytes
            if time.monotonic() >= self._retention_due or self._retention_bytes > _RETENTION_EVERY_BYTES:
                # The records are in the log: an error now would have them appended again.
                with suppress(HeadraceError):
                    self._retain()
        return appended

    def _make_room(self, wanted: int) -> None:
        """Apply retention when the next append would not fit otherwise."""
        with self._writer.held() as sqlite:
            if not self._appender.fits(sqlite, wanted):
                self._retain()

    def _retain(self) -> None:
        self._retention_due = time.monotonic() + _RETENTION_EVERY_S
        self._retention_bytes = 0
        more = self._limits.age is not None or self._limits.bytes is not None
        while more:
            with self._writer.writing() as sqlite:
                more = self._retention.apply(sqlite, microseconds_of(self.now()))
        with self._writer.held() as sqlite:
            if sqlite.execute("SELECT 1 FROM loads LIMIT 1").fetchone():
                with self._writer.writing():
                    remove_dead_marks(self._path, sqlite)
            self._give_back(sqlite)

    def _give_back(self, sqlite: sqlite3.Connection) -> None:
        """Give space back to the file system when most of the file is free; less is soon used again."""
        (free,) = sqlite.execute("PRAGMA freelist_count").fetchone()
        (pages,) = sqlite.execute("PRAGMA page_count").fetchone()
        if 2 * free > pages:
            # It frees a page a step and has no columns: `execute` would take one step and stop.
            sqlite.executescript(f"PRAGMA incremental_vacuum({_GIVEN_BACK_PAGES})")
            sqlite.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    def retain(self) -> None:
        """Apply retention, and what goes with it, now; appends do so by themselves every some seconds."""
        with self._writer.held():
            self._retain()

    def read(self, positions: Mapping[int, int], *, rows_max: int, bytes_max: int, wait: timedelta) -> Slice:
        """Read from `positions` in record-time order over all partitions; see `Log.read`."""
        self._require_same_file()
        deadline = time.monotonic() + wait.total_seconds()
        with self._reader.held() as sqlite:
            while True:
                # Asked before the end is looked at: what is appended after that is not claimed to be absent.
                asked = self.now()
                seen = _file_version(sqlite)
                given = self._still_quiet(seen, positions, asked)
                if given is None:
                    given = self._read_now(asked, positions, rows_max, bytes_max)
                    quiet = not given.records.num_rows and len(given.idle_since) == len(given.next)
                    self._quiet = (seen, given) if quiet else None
                if given.records.num_rows or time.monotonic() >= deadline or self._closed.is_set():
                    return given
                self._wait_for_change(sqlite, seen, deadline)

    def _still_quiet(self, seen: int, positions: Mapping[int, int], asked: datetime) -> Slice | None:
        """Return the last read's empty answer if nothing was committed since: waiting is nearly free."""
        if self._quiet is None or self._quiet[0] != seen or self._quiet[1].next != positions:
            return None
        return replace(self._quiet[1], idle_since=dict.fromkeys(positions, asked))

    def _read_now(
        self, asked: datetime, positions: Mapping[int, int], rows_max: int, bytes_max: int
    ) -> Slice:
        with self._reader.held() as sqlite:
            dead = dead_loads(self._path, sqlite, self._stream)
        with self._reader.reading() as sqlite:
            ranges = partition_ranges(sqlite, self._stream)
            starts = start_positions(self._place, ranges, positions)
            chosen, begins, bound = self._batches.choose(
                sqlite, ranges, starts, max(rows_max, 1), max(bytes_max, 1)
            )
            loading = load_in_progress(sqlite, self._stream, dead)
        records = arrange(chosen, begins, bound, rows_max, bytes_max)
        following = dict(starts)
        if records.num_rows:
            for count in records.column("partition").value_counts().to_pylist():
                following[count["values"]] += count["counts"]
        self._batches.keep(chosen, following)
        idle = {held.partition: asked for held in ranges if following[held.partition] == held.end}
        ends = {held.partition: held.end for held in ranges}
        return Slice(records, following, {} if loading else idle, ends=ends)

    def _wait_for_change(self, sqlite: sqlite3.Connection, seen: int, deadline: float) -> None:
        """Return when another connection committed something, or at `deadline`, or when the log is closed."""
        while (left := deadline - time.monotonic()) > 0:
            if self._closed.wait(min(self._pause_s, left)):
                return
            if _file_version(sqlite) != seen:
                self._pause_s = _PAUSE_FIRST_S
                return
            self._pause_s = min(self._pause_s * _PAUSE_GROWTH, _PAUSE_MAX_S)

    def publish(self, reader: str, positions: Mapping[int, int]) -> None:
        """Make a reader's committed positions known; see `Log.publish`."""
        rows = [(self._stream, reader, partition, position) for partition, position in positions.items()]
        with self._control.writing() as sqlite:
            sqlite.executemany(
                "INSERT INTO readers VALUES (?, ?, ?, ?) "
                "ON CONFLICT DO UPDATE SET position = excluded.position",
                rows,
            )

    def readers(self, name: str | None = None) -> Mapping[str, Mapping[int, int]]:
        """The positions that readers published; with `name`, those of that one."""
        with self._control.held() as sqlite:
            found = positions_of_readers(sqlite, self._stream)
        return {each: positions for each, positions in found.items() if name in (None, each)}

    def load(self) -> AbstractContextManager[None]:
        """Mark the stream as being loaded while open; see `Log.load`."""
        return load_marked(self._path, self._control, self._stream)

    def lane(self, name: str, *, latest: bool = False) -> EmbeddedLog:
        """A side log of the stream in the same file, with one partition and offsets of its own.

        `latest` changes nothing here: retention runs behind an append, so the last record stays.
        """
        if self._lane:
            raise RefusedError(f"{self._place}: a lane has no lanes", fix="ask the stream's log for it")
        if not name:
            raise RefusedError(f"{self._place}: a lane without a name", fix="give it one, such as 'redrive'")
        with self._lanes_lock:
            if name not in self._lanes:
                self._lanes[name] = EmbeddedLog(
                    self._path, self._name, name, 1, self._limits, self._clock, self._durable
                )
            return self._lanes[name]

    def close(self) -> None:
        """Give back files and connections, of the lanes too."""
        self._closed.set()
        with self._lanes_lock:
            for lane in self._lanes.values():
                lane.close()
            self._lanes.clear()
        for connection in (self._reader, self._control, self._writer):
            connection.close()

    def _require_same_file(self) -> None:
        """Refuse to go on with a file that was deleted or replaced: appends to it would vanish unnoticed."""
        with errors_named(self._path):
            try:
                found = self._path.stat()
            except FileNotFoundError:
                found = None
        if found is None or (found.st_dev, found.st_ino) != self._file:
            raise IntegrityError(
                f"{self._place}: the file was deleted or replaced while it was open",
                fix="stop every process that uses it, then start again",
            )


def _file_version(sqlite: sqlite3.Connection) -> int:
    """Return a number that changes when another connection commits."""
    return int(sqlite.execute("PRAGMA data_version").fetchone()[0])
