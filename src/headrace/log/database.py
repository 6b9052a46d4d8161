"""The SQLite file behind the embedded log: its tables, connections, transactions and errors."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from headrace.errors import HeadraceError, IntegrityError, InternalError, RefusedError, TransientError

__all__ = ["Connection", "FileIdentity", "Synchronous", "create_database", "errors_named"]

_APPLICATION_ID = 0x48524C47  # "HRLG": tells our file from any other SQLite file
_FORMAT = 1
# Larger pages make large batches cheaper, smaller ones a single record: measured at 4, 8 and 16 KiB.
_PAGE_BYTES = 8192
_WAL_PAGES = 16 * 1024 * 1024 // _PAGE_BYTES
_BUSY_MS = 10_000
_LOCK_ASKED_EVERY_S = 0.0005

# `batches` keeps its large columns last, so that reading the small ones does not touch overflow pages; the
# index holds everything that choosing batches needs.
_TABLES = (
    """CREATE TABLE streams (
        id INTEGER PRIMARY KEY, name TEXT NOT NULL, lane TEXT NOT NULL, identity TEXT NOT NULL,
        partitions INTEGER NOT NULL, UNIQUE (name, lane))""",
    """CREATE TABLE partitions (
        stream INTEGER NOT NULL, partition INTEGER NOT NULL, start_offset INTEGER NOT NULL,
        end_offset INTEGER NOT NULL, clock_time INTEGER NOT NULL, stored_bytes INTEGER NOT NULL,
        PRIMARY KEY (stream, partition)) WITHOUT ROWID""",
    """CREATE TABLE batches (
        id INTEGER PRIMARY KEY, stream INTEGER NOT NULL, partition INTEGER NOT NULL,
        first_offset INTEGER NOT NULL, records INTEGER NOT NULL, first_time INTEGER NOT NULL,
        max_time INTEGER NOT NULL, bytes INTEGER NOT NULL, stored_bytes INTEGER NOT NULL,
        checksum INTEGER NOT NULL, codec INTEGER NOT NULL, times BLOB, value_lengths BLOB NOT NULL,
        key_lengths BLOB, headers BLOB, keys BLOB, "values" BLOB NOT NULL)""",
    """CREATE INDEX batches_by_offset
        ON batches (stream, partition, first_offset, records, first_time, max_time, bytes)""",
    """CREATE TABLE readers (
        stream INTEGER NOT NULL, reader TEXT NOT NULL, partition INTEGER NOT NULL, position INTEGER NOT NULL,
        PRIMARY KEY (stream, reader, partition)) WITHOUT ROWID""",
    "CREATE TABLE loads (token TEXT PRIMARY KEY, stream INTEGER NOT NULL) WITHOUT ROWID",
)

FileIdentity = tuple[int, int]
Synchronous = Literal["FULL", "NORMAL", "OFF"]
"""When SQLite waits for the disk: at every commit; at checkpoints only (a power cut may undo the last
commits, but the file stays whole); never."""


def _translated(error: sqlite3.Error, path: Path) -> HeadraceError:
    """Return our error for SQLite's: who must act decides the class."""
    code = getattr(error, "sqlite_errorcode", None)
    name = getattr(error, "sqlite_errorname", type(error).__name__)
    primary = code & 0xFF if code is not None else None
    if primary in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return TransientError(
            f"log file {path}: another process held the write lock for more than {_BUSY_MS // 1000} s",
            fix="try again; if it stays, find the process that holds the file open and stop it",
        )
    if primary == sqlite3.SQLITE_FULL:
        return RefusedError(
            f"log file {path}: the disk is full; nothing of this call was written",
            fix="free space on that disk, or lower the stream's retention, then start again",
        )
    if primary in (
        sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_PERM,
        sqlite3.SQLITE_AUTH,
    ):
        return RefusedError(
            f"log file {path}: cannot be opened for writing ({name})",
            fix="give this user write access to the file and its folder (files -wal and -shm are made there)",
        )
    if primary in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        return IntegrityError(
            f"log file {path}: it is damaged or not a log file ({name})",
            fix="keep the file, and restore it from a backup or start with a new path",
        )
    if primary in (sqlite3.SQLITE_IOERR, sqlite3.SQLITE_NOMEM, sqlite3.SQLITE_PROTOCOL):
        return TransientError(
            f"log file {path}: the operating system failed to read or write it ({name})",
            fix="check the disk (space, health, quota) and memory, then try again",
        )
    return InternalError(f"log file {path}: {type(error).__name__}: {error}")


@contextmanager
def errors_named(path: Path) -> Iterator[None]:
    """Raise what SQLite and the file system raise as errors of ours that name `path`."""
    try:
        yield
    except sqlite3.Error as error:
        raise _translated(error, path) from error
    except OSError as error:
        raise RefusedError(
            f"log file {path}: {error.strerror or error}",
            fix="check that the folder exists, is writable and has space",
        ) from error


class Connection:
    """One SQLite connection and the lock that lets one thread at a time use it; opened when first needed."""

    def __init__(self, path: Path, *, synchronous: Synchronous) -> None:
        self._path = path
        self._synchronous = synchronous
        self._lock = threading.RLock()
        self._sqlite: sqlite3.Connection | None = None
        self._closed = False

    @contextmanager
    def held(self) -> Iterator[sqlite3.Connection]:
        """Hold the connection, outside a transaction."""
        with self._lock, errors_named(self._path):
            if self._closed:
                raise RefusedError(f"log file {self._path}: this log was closed", fix="open it again")
            if self._sqlite is None:
                self._sqlite = _connect(self._path, synchronous=self._synchronous)
            yield self._sqlite

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """Hold the connection and the file's write lock; all of it is committed, or none."""
        with self.held() as sqlite:
            _begin_writing(sqlite)
            try:
                yield sqlite
                sqlite.execute("COMMIT")
            except BaseException:
                _roll_back(sqlite)
                raise

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """Hold the connection and one snapshot of the file.

        To be left soon: an old snapshot makes the write-ahead log grow.
        """
        with self.held() as sqlite:
            sqlite.execute("BEGIN")
            try:
                yield sqlite
            finally:
                _roll_back(sqlite)

    def close(self) -> None:
        """Close the connection; whoever uses it later gets a RefusedError."""
        with self._lock, errors_named(self._path):
            self._closed = True
            if self._sqlite is not None:
                self._sqlite.close()
                self._sqlite = None


def _begin_writing(sqlite: sqlite3.Connection) -> None:
    """Take the file's write lock, or raise SQLITE_BUSY after `_BUSY_MS`.

    SQLite's own waiting sleeps up to 100 ms at a time; beside a producer at full speed the lock was free and
    taken again in between, and an engine's commit waited for seconds.
    """
    deadline = time.monotonic() + _BUSY_MS / 1000
    sqlite.execute("PRAGMA busy_timeout = 0")
    try:
        while True:
            try:
                sqlite.execute("BEGIN IMMEDIATE")
                return
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                    raise
                time.sleep(_LOCK_ASKED_EVERY_S)
    finally:
        sqlite.execute(f"PRAGMA busy_timeout = {_BUSY_MS}")


def _roll_back(sqlite: sqlite3.Connection) -> None:
    if sqlite.in_transaction:  # a full disk already rolled it back
        sqlite.execute("ROLLBACK")


def _connect(path: Path, *, synchronous: Synchronous) -> sqlite3.Connection:
    sqlite = sqlite3.connect(
        path, timeout=_BUSY_MS / 1000, isolation_level=None, check_same_thread=False, cached_statements=64
    )
    try:
        sqlite.execute(f"PRAGMA synchronous = {synchronous}")
        sqlite.execute(f"PRAGMA wal_autocheckpoint = {_WAL_PAGES}")
        sqlite.execute(f"PRAGMA journal_size_limit = {4 * _WAL_PAGES * _PAGE_BYTES}")
        sqlite.execute("PRAGMA cache_size = -4096")
    except BaseException:
        sqlite.close()
        raise
    return sqlite


def create_database(path: Path) -> FileIdentity:
    """Make the file and its tables unless they are there; return which file it is.

    Raises RefusedError for a file that is not a log of this version.
    """
    with errors_named(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        sqlite = _connect(path, synchronous="FULL")
        try:
            _require_ours(sqlite, path)
            if sqlite.execute("PRAGMA user_version").fetchone()[0] == 0:
                _create_tables(sqlite)
        finally:
            sqlite.close()
        found = path.stat()
        return found.st_dev, found.st_ino


def _create_tables(sqlite: sqlite3.Connection) -> None:
    sqlite.execute(f"PRAGMA page_size = {_PAGE_BYTES}")
    sqlite.execute("PRAGMA auto_vacuum = INCREMENTAL")
    _switch_to_wal(sqlite)
    sqlite.execute("BEGIN IMMEDIATE")
    try:
        # Asked again under the lock: another process may have been faster.
        if sqlite.execute("PRAGMA user_version").fetchone()[0] == 0:
            for table in _TABLES:
                sqlite.execute(table)
            sqlite.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
            sqlite.execute(f"PRAGMA user_version = {_FORMAT}")
        sqlite.execute("COMMIT")
    except BaseException:
        _roll_back(sqlite)
        raise


def _switch_to_wal(sqlite: sqlite3.Connection) -> None:
    # SQLite does not wait for the lock that this switch needs, whatever the busy timeout says.
    deadline = time.monotonic() + _BUSY_MS / 1000
    while True:
        try:
            sqlite.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(0.005)


def _require_ours(sqlite: sqlite3.Connection, path: Path) -> None:
    # Tables first: another process may be creating the file, and its tables come with the mark.
    tables = sqlite.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]
    application = sqlite.execute("PRAGMA application_id").fetchone()[0]
    if application != _APPLICATION_ID and tables:
        raise RefusedError(
            f"{path} is an SQLite file, but not a Headrace log",
            fix="give the log a path of its own",
        )
    version = sqlite.execute("PRAGMA user_version").fetchone()[0]
    if version > _FORMAT:
        raise RefusedError(
            f"log file {path}: written by a newer Headrace (format {version}, this one reads {_FORMAT})",
            fix="upgrade Headrace, or start with a new path",
        )
